/* pock_program.h: the tables of a compiled program, as the compiler writes them in plan.c.
 *
 * Internal to the library: program and runtime are always built and linked together.
 */
#ifndef POCK_PROGRAM_H
#define POCK_PROGRAM_H

#include "pock_core.h"

/* A region that offsets point into. A device arena is a further member. */
enum {
    PK_SPACE_STATE = 0,
    PK_SPACE_ARENA = 1,
    PK_SPACE_SCALAR = 2,
    PK_SPACE_FROZEN = 3,
    PK_SPACES = 4
};

/* A place: the space in the top byte, the offset in bytes below. */
#define PK_PLACE(space, offset) (((uint64_t)(space) << 56) | (uint64_t)(offset))
#define PK_PLACE_SPACE(place) ((uint32_t)((place) >> 56))
#define PK_PLACE_OFFSET(place) ((place) & ((UINT64_C(1) << 56) - 1u))

/* Alignment of every space. */
#define PK_ALIGN 64u

/* Calls a kernel with its arguments as pointers; 0 is success. */
typedef int32_t (*pk_kernel_call)(void *const *args);

typedef struct pk_kernel {
    pk_kernel_call call;
    const char *symbol;
    uint32_t arity;
} pk_kernel;

typedef struct pk_step {
    uint32_t kernel;    /* index into the program's kernels */
    uint32_t first_arg; /* index into the entry's places */
} pk_step;

typedef struct pk_value {
    pk_tensor tensor;
    uint64_t place;
} pk_value;

typedef struct pk_entry {
    const char *name;
    const pk_step *steps;
    const uint64_t *places; /* the arguments of all steps, one after the other */
    const char *const *nodes;
    const pk_value *inputs;  /* batch inputs, in the caller's order */
    const pk_value *scalars; /* of kind PK_LR, PK_STEP, PK_SEED */
    const pk_value *outputs; /* loss, predictions, metrics */
    uint32_t step_count;
    uint32_t place_count;
    uint32_t input_count;
    uint32_t scalar_count;
    uint32_t output_count;
    uint64_t arena_bytes;
    uint64_t lower_bound_bytes;
} pk_entry;

typedef struct pk_program {
    uint32_t abi_version;
    uint32_t micro_batches;
    const pk_kernel *kernels;
    const pk_entry *entries;
    const pk_value *tensors;
    uint32_t kernel_count;
    uint32_t entry_count;
    uint32_t tensor_count;
    uint64_t state_bytes;
    uint64_t arena_bytes;
    uint64_t scalar_bytes;
    uint64_t frozen_bytes;
} pk_program;

/* Defined by plan.c. */
extern const pk_program pk_linked_program;

#endif
