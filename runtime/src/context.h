/* context.h: what an open program consists of. */
#ifndef PK_CONTEXT_H
#define PK_CONTEXT_H

#include <stdbool.h>
#include <sys/types.h>

#include "pock_program.h"
#include "pool.h"

enum { PK_MAX_RANK = 16 };

struct pk_context {
    const pk_program *program;
    uint8_t *spaces[PK_SPACES]; /* base addresses */
    void ***args;               /* per entry: the arguments of all steps as addresses */
    pk_memory memory;
    void *mapping; /* the one allocation; this struct lies at its start */
    void *frozen_mapping;
    uint64_t frozen_mapping_bytes;
    bool frozen_changed;
    uint64_t step;
    int64_t seed;
    pk_step_hook hook;
    void *hook_user;
    pk_recording *recording;
    uint32_t failed_entry;
    uint32_t failed_step;
    int32_t failed_code;
    pid_t process;
    pk_pool pool;
};

/* The address of a place. */
static inline uint8_t *pk_address(const pk_context *context, uint64_t place)
{
    return context->spaces[PK_PLACE_SPACE(place)] + PK_PLACE_OFFSET(place);
}

/* As pk_open and pk_memory_needed, for a program that need not be the linked one. */
pk_status pk_program_memory(const pk_program *program, uint32_t threads, pk_memory *memory);
PK_API pk_status pk_open_program(const pk_program *program, uint32_t threads,
                                 const pk_frozen *frozen, pk_context **context);
/* Let frozen memory be written; pages that are become private. */
pk_status pk_frozen_unprotect(pk_context *context);

/* Elements `first` .. `first + count - 1` in logical row-major order, from or to `linear`. */
void pk_gather(const pk_tensor *tensor, const uint8_t *memory, uint64_t first, uint64_t count,
               uint8_t *linear);
void pk_scatter(const pk_tensor *tensor, uint8_t *memory, uint64_t first, uint64_t count,
                const uint8_t *linear);

uint32_t pk_dtype_bytes(pk_dtype dtype);

/* Kernels of this thread use `pool` for their parallel loops until it is set to NULL. */
void pk_set_current_pool(pk_pool *pool);

#endif
