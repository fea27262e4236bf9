/* core.h: the functions of the compiled program: of step.so, or in a static build of this one. */
#ifndef POCK_CORE_TABLE_H
#define POCK_CORE_TABLE_H

#include "message.h"

/* X(name, result, parameters) of what is called here of pock_core.h. */
#define POCK_CORE_FUNCTIONS(X)                                                                     \
    X(abi_version, uint32_t, (void))                                                               \
    X(memory_needed, pk_status, (uint32_t, pk_memory *))                                           \
    X(open, pk_status, (uint32_t, const pk_frozen *, pk_context **))                               \
    X(close, void, (pk_context *))                                                                 \
    X(memory_used, pk_status, (const pk_context *, pk_memory *))                                   \
    X(threads, uint32_t, (const pk_context *))                                                     \
    X(entry_at, pk_status, (const pk_context *, uint32_t, pk_entry_info *))                        \
    X(entry_find, pk_status, (const pk_context *, const char *, uint32_t *))                       \
    X(input_at, pk_status, (const pk_context *, uint32_t, uint32_t, const pk_tensor **))           \
    X(output_at, pk_status, (const pk_context *, uint32_t, uint32_t, const pk_tensor **))          \
    X(step_at, pk_status, (const pk_context *, uint32_t, uint32_t, const char **, const char **))  \
    X(tensor_count, uint32_t, (const pk_context *))                                                \
    X(tensor_at, pk_status, (const pk_context *, uint32_t, const pk_tensor **))                    \
    X(tensor_find, pk_status, (const pk_context *, const char *, uint32_t *))                      \
    X(tensor_memory, pk_status, (const pk_context *, uint32_t, void **))                           \
    X(tensor_read, pk_status, (const pk_context *, uint32_t, uint64_t, uint64_t, void *))          \
    X(tensor_write, pk_status, (pk_context *, uint32_t, uint64_t, uint64_t, const void *))         \
    X(frozen_offset, pk_status, (const pk_context *, uint32_t, uint64_t *))                        \
    X(frozen_changed, uint32_t, (const pk_context *))                                              \
    X(state_check, pk_status, (const pk_context *, uint32_t *))                                    \
    X(micro_batches, uint32_t, (const pk_context *))                                               \
    X(input_write, pk_status,                                                                      \
      (pk_context *, uint32_t, uint32_t, uint64_t, uint64_t, const void *))                        \
    X(output_read, pk_status,                                                                      \
      (const pk_context *, uint32_t, uint32_t, uint64_t, uint64_t, void *))                        \
    X(run_placed, pk_status, (pk_context *, uint32_t, const pk_scalars *))                         \
    X(train_step, pk_status, (pk_context *, float, const void *const *, float *))                  \
    X(train_step_placed, pk_status, (pk_context *, float, pk_fill, void *, float *))               \
    X(progress_get, pk_status, (const pk_context *, uint64_t *, int64_t *))                        \
    X(progress_set, pk_status, (pk_context *, uint64_t, int64_t))                                  \
    X(failed_step, pk_status, (const pk_context *, uint32_t *, uint32_t *, int32_t *))             \
    X(record, pk_status, (pk_context *, pk_recording *))

#define POCK_CORE_MEMBER(name, result, parameters) result(*name) parameters;

typedef struct core {
    POCK_CORE_FUNCTIONS(POCK_CORE_MEMBER)
    void *library; /* NULL in a static build */
    int file;      /* step.so; stays open with it */
} core;

/* PK_E_LIBRARY or PK_E_VERSION, with the message. */
pk_status core_load(core *c, const char *path, pock_error *error);
void core_unload(core *c);
/* NULL if the program has none of that name. */
void *core_symbol(const core *c, const char *name);

#endif
