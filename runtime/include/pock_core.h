/* pock_core.h: run a compiled training step. What `step.so` exports; programs use pock.h above it.
 *
 * The library holds kernels, a plan and this runtime. A context is one open program: its state
 * (parameters, buffers, optimizer state), one arena that the entries use in turn, and a pool of
 * threads. What no step changes is mapped from a file. Everything is allocated once, by pk_open. Nothing here prints, exits or allocates
 * later; every call that can fail returns a status.
 *
 * A context belongs to one thread at a time. Different contexts are independent.
 *
 * Outside the library tensors are row-major in their logical shape. Inside they may lie in another
 * order; pk_run, pk_tensor_read and pk_tensor_write convert.
 */
#ifndef POCK_CORE_H
#define POCK_CORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PK_API __attribute__((visibility("default")))
#else
#define PK_API
#endif

/* Grows with every change of a declaration below. */
#define PK_ABI_VERSION 3u

typedef enum pk_status {
    PK_OK = 0,
    PK_E_ARGUMENT = 1,  /* a null pointer, or an index or range that does not exist */
    PK_E_MEMORY = 2,    /* the system refused the memory */
    PK_E_THREADS = 3,   /* the system refused a thread */
    PK_E_NOT_FOUND = 4, /* no entry or tensor of that name */
    PK_E_SIZE = 5,      /* a buffer's size is not the tensor's */
    PK_E_KERNEL = 6,    /* a kernel reported an error; pk_failed_step says which */
    PK_E_NONFINITE = 7, /* the loss is NaN or infinite */
    PK_E_FORKED = 8,    /* the process forked after pk_open: the child has no threads */
    PK_E_PROGRAM = 9,   /* the program's tables contradict themselves */
    PK_E_FROZEN = 10,   /* the file of frozen tensors is missing, too short, or not mapped */

    /* From here on of pock.h alone; pock_message has the particulars. */
    PK_E_NO_ARTIFACT = 32,   /* the folder is missing, or is something else */
    PK_E_VERSION = 33,       /* made for another version of the format or of this interface */
    PK_E_TARGET = 34,        /* compiled for another processor or system */
    PK_E_DAMAGED = 35,       /* a file is missing, cut off or changed */
    PK_E_LIBRARY = 36,       /* the system does not load step.so */
    PK_E_TOO_LARGE = 37,     /* it needs more memory than there is */
    PK_E_MISMATCH = 38,      /* a checkpoint does not fit the artifact, the run or the data */
    PK_E_NO_CHECKPOINT = 39, /* there is no such file */
    PK_E_DATA_FILE = 40,     /* data cannot be read */
    PK_E_DATA_NAMES = 41,    /* data lacks an input */
    PK_E_DATA_SHAPE = 42,    /* data has the wrong shape, type or number of rows */
    PK_E_DATA_VALUES = 43,   /* data has a value that the model does not take */
    PK_E_OPTION = 44,        /* a setting that is no good */
    PK_E_WRITE = 45,         /* the system refused to write, as on a full disk */
    PK_E_BUSY = 46,          /* another process uses what this one would write */
    PK_E_STOPPED = 47        /* the caller asked to stop */
} pk_status;

typedef enum pk_dtype {
    PK_F64 = 0,
    PK_F32 = 1,
    PK_F16 = 2,
    PK_BF16 = 3,
    PK_I64 = 4,
    PK_I32 = 5,
    PK_I16 = 6,
    PK_I8 = 7,
    PK_U8 = 8,
    PK_B1 = 9
} pk_dtype;

typedef enum pk_kind {
    PK_PARAM = 0,
    PK_BUFFER = 1,
    PK_OPT_STATE = 2,
    PK_CONSTANT = 3,
    PK_BATCH = 4,
    PK_LR = 5,
    PK_STEP = 6,
    PK_SEED = 7,
    PK_LOSS = 8,
    PK_PREDICTION = 9,
    PK_METRIC = 10
} pk_kind;

/* The step writes this tensor. */
#define PK_WRITTEN 1u
/* Sums gradients over micro-batches; cleared when a sum is abandoned. */
#define PK_GRAD_SUM 2u
/* No step writes this tensor; it is mapped from a file, read-only. */
#define PK_FROZEN 4u
/* Steps read it by rows, where an index says: of an embedding table most is never read. */
#define PK_GATHERED 8u

/* What a tensor is; the numbers stay valid as long as the library is loaded. */
typedef struct pk_tensor {
    const char *name;
    const int64_t *shape;   /* logical, `rank` sizes */
    const uint32_t *order;  /* dimensions as memory holds them, major first; NULL is row-major */
    uint64_t nbytes;
    pk_dtype dtype;
    pk_kind kind;
    uint32_t rank;
    uint32_t flags;
} pk_tensor;

/* An entry point. Scalars (lr, step, seed) are not among its inputs. */
typedef struct pk_entry_info {
    const char *name;
    uint32_t inputs;
    uint32_t outputs;
    uint32_t steps;
    uint32_t reserved;
    uint64_t arena_bytes;
    uint64_t lower_bound_bytes;
} pk_entry_info;

/* Every byte that pk_open asks the system for, thread stacks excepted. */
typedef struct pk_memory {
    uint64_t state_bytes;
    uint64_t arena_bytes;
    uint64_t runtime_bytes; /* tables, scalars, the context itself */
    uint64_t total_bytes;   /* the sum of these three, rounded up to pages: private memory */
    uint64_t frozen_bytes;  /* mapped: the system loads what is read, and may drop it again */
} pk_memory;

/* Where the frozen tensors are. The file is mapped privately and must not be written while the
 * context is open; its descriptor may be closed. */
typedef struct pk_frozen {
    int32_t file; /* descriptor of frozen.safetensors */
    uint32_t reserved;
    uint64_t offset; /* where the tensors begin in it: behind the header, a multiple of 64 */
} pk_frozen;

typedef struct pk_scalars {
    float lr;
    uint32_t reserved;
    uint64_t step; /* counted from 1 */
    int64_t seed;
} pk_scalars;

/* Called after each step of an entry, for a profiler. Times are CLOCK_MONOTONIC nanoseconds. */
typedef void (*pk_step_hook)(void *user, uint32_t entry, uint32_t step, uint64_t begin_ns,
                             uint64_t end_ns);

/* A kernel call of a training step as it was recorded. Times are CLOCK_MONOTONIC nanoseconds. */
typedef struct pk_call {
    uint32_t entry;
    uint32_t step;
    uint64_t begin_ns;
    uint64_t end_ns;
} pk_call;

/* A thread's part of a recorded call: from its first loop's begin to its last one's end, and the
 * time in them. All 0 if it had none. What does not run in parallel is thread 0's. */
typedef struct pk_share {
    uint64_t begin_ns;
    uint64_t end_ns;
    uint64_t busy_ns;
} pk_share;

/* Where calls are recorded; the caller's memory. */
typedef struct pk_recording {
    pk_call *calls;
    pk_share *shares;  /* pk_threads for each call */
    uint64_t capacity; /* calls that there is room for; what comes after is not recorded */
    uint64_t count;    /* calls that were recorded; the caller may set it back to 0 */
} pk_recording;

typedef struct pk_context pk_context;

PK_API uint32_t pk_abi_version(void);
PK_API const char *pk_status_text(pk_status status);

/* What pk_open will take with so many threads (0: one per processor that this process may use). */
PK_API pk_status pk_memory_needed(uint32_t threads, pk_memory *memory);
/* `frozen` may be NULL if the program has no frozen tensors. */
PK_API pk_status pk_open(uint32_t threads, const pk_frozen *frozen, pk_context **context);
PK_API void pk_close(pk_context *context);
PK_API pk_status pk_memory_used(const pk_context *context, pk_memory *memory);
PK_API uint32_t pk_threads(const pk_context *context);

PK_API uint32_t pk_entry_count(const pk_context *context);
PK_API pk_status pk_entry_at(const pk_context *context, uint32_t entry, pk_entry_info *info);
PK_API pk_status pk_entry_find(const pk_context *context, const char *name, uint32_t *entry);
PK_API pk_status pk_input_at(const pk_context *context, uint32_t entry, uint32_t input,
                             const pk_tensor **tensor);
PK_API pk_status pk_output_at(const pk_context *context, uint32_t entry, uint32_t output,
                              const pk_tensor **tensor);
/* The kernel's symbol and the graph node it computes. */
PK_API pk_status pk_step_at(const pk_context *context, uint32_t entry, uint32_t step,
                            const char **kernel, const char **node);

/* The state. Tensors are numbered from 0 and found by name. */
PK_API uint32_t pk_tensor_count(const pk_context *context);
PK_API pk_status pk_tensor_at(const pk_context *context, uint32_t index,
                              const pk_tensor **tensor);
PK_API pk_status pk_tensor_find(const pk_context *context, const char *name, uint32_t *index);
/* The memory of a tensor in its own order; for row-major tensors a way around copying. That of a
 * frozen tensor is read-only. */
PK_API pk_status pk_tensor_memory(const pk_context *context, uint32_t index, void **memory);
/* Copy `count` elements from number `first` on, in logical row-major order. */
PK_API pk_status pk_tensor_read(const pk_context *context, uint32_t index, uint64_t first,
                                uint64_t count, void *target);
/* A frozen tensor that is written with what it holds stays mapped; with something else the pages
 * that change become private memory. */
PK_API pk_status pk_tensor_write(pk_context *context, uint32_t index, uint64_t first,
                                 uint64_t count, const void *source);
/* Where a frozen tensor begins, counted from pk_frozen.offset. PK_E_NOT_FOUND if it is not one. */
PK_API pk_status pk_frozen_offset(const pk_context *context, uint32_t index, uint64_t *offset);
/* 1 if a frozen tensor was written with something else than its file holds, else 0. */
PK_API uint32_t pk_frozen_changed(const pk_context *context);
/* PK_E_NONFINITE if a floating-point tensor that steps write holds a NaN or an infinity. */
PK_API pk_status pk_state_check(const pk_context *context, uint32_t *index);

/* Run one entry: one pointer per input and per output, each the whole tensor, row-major.
 * An output pointer may be NULL: that output is not copied; so may `outputs` itself. */
PK_API pk_status pk_run(pk_context *context, uint32_t entry, const pk_scalars *scalars,
                        const void *const *inputs, void *const *outputs);

/* One training step, micro-batches included: `inputs` are those of `train_step`, each with
 * pk_micro_batches times as many rows. Counts the step. On PK_E_NONFINITE the loss is still
 * written; with one micro-batch the state has taken the step, with several it has not. */
PK_API pk_status pk_train_step(pk_context *context, float lr, const void *const *inputs,
                               float *loss);
PK_API uint32_t pk_micro_batches(const pk_context *context);

/* The same without a copy of the whole batch. Elements of an input are written straight to where
 * the entry reads them, those of an output are read from where it left them. Inputs must be written
 * anew for every run; outputs hold until the next one, of whatever entry. */
PK_API pk_status pk_input_write(pk_context *context, uint32_t entry, uint32_t input,
                                uint64_t first, uint64_t count, const void *source);
PK_API pk_status pk_output_read(const pk_context *context, uint32_t entry, uint32_t output,
                                uint64_t first, uint64_t count, void *target);
/* As pk_run, after pk_input_write of every input. */
PK_API pk_status pk_run_placed(pk_context *context, uint32_t entry, const pk_scalars *scalars);
/* As pk_train_step; `fill` is called before each micro-batch and writes the inputs of
 * `train_step`. What it returns, if not PK_OK, abandons the step. */
typedef pk_status (*pk_fill)(void *user, uint32_t micro_batch);
PK_API pk_status pk_train_step_placed(pk_context *context, float lr, pk_fill fill, void *user,
                                      float *loss);

/* Steps taken, and the seed from which every step derives its own; part of a checkpoint. */
PK_API pk_status pk_progress_get(const pk_context *context, uint64_t *step, int64_t *seed);
PK_API pk_status pk_progress_set(pk_context *context, uint64_t step, int64_t seed);
/* The seed that a step (from 1) hands to its kernels. */
PK_API int64_t pk_step_seed(int64_t seed, uint64_t step, uint32_t micro_batch);

/* After PK_E_KERNEL: where, and what the kernel returned. */
PK_API pk_status pk_failed_step(const pk_context *context, uint32_t *entry, uint32_t *step,
                                int32_t *code);
/* NULL removes the hook. */
PK_API pk_status pk_set_step_hook(pk_context *context, pk_step_hook hook, void *user);

/* Record the kernel calls of training steps, evaluations apart, from now on; NULL ends that. The
 * recording must outlive it. Without one no clock is read. */
PK_API pk_status pk_record(pk_context *context, pk_recording *recording);

#ifdef __cplusplus
}
#endif

#endif
