/* model.h: what an open artifact consists of. */
#ifndef POCK_MODEL_H
#define POCK_MODEL_H

#include "core.h"
#include "manifest.h"
#include "pock.h"
#include "tensor_file.h"

enum { POCK_MAX_PORTS = 32 };

/* An entry as the tables and the manifest tell of it. */
typedef struct entry_spec {
    bool present;
    uint32_t number;
    uint32_t input_count;
    uint32_t output_count;
    uint64_t rows; /* of one call */
    const pk_tensor *inputs[POCK_MAX_PORTS];
    const pk_tensor *outputs[POCK_MAX_PORTS];
    port_spec input_specs[POCK_MAX_PORTS];
    bool output_batched[POCK_MAX_PORTS];
} entry_spec;

enum { ENTRY_TRAIN = 0, ENTRY_EVALUATE = 1, ENTRY_PREDICT = 2, ENTRY_KINDS = 3 };

struct pock_model {
    pock_error error;
    char folder[POCK_PATH_BYTES];
    manifest manifest;
    core core;
    pk_context *context;
    entry_spec entries[ENTRY_KINDS];
    uint8_t *stored;  /* per tensor: whether the artifact's own state has it */
    uint8_t *buffer;  /* POCK_BUFFER_BYTES, aligned to 64: elements and files on their way */
    bool diverged;    /* the last step made the state NaN or infinite */
    char class_name[256];
    char frozen_hash[SHA256_DIGITS + 1];
};

static const char *const ENTRY_NAMES[ENTRY_KINDS] = {"train_step", "evaluate", "predict"};

/* Refuses a call that needs an open program. */
pk_status model_check_open(pock_model *model);
/* A status of the core, with a message if there is none yet. */
pk_status model_core_status(pock_model *model, pk_status status);
/* Free memory; UINT64_MAX if the system does not tell. */
uint64_t available_bytes(void);

/* state.c */
pk_status state_read_initial(pock_model *model);
pk_status state_check_frozen(pock_model *model, const tensor_file *frozen);
pk_status state_check_finite(pock_model *model);
/* As pock_load_checkpoint; the file stays open for its metadata. */
pk_status state_load(pock_model *model, tensor_file *file);
/* Where the artifact's frozen tensors are. */
bool frozen_path(const pock_model *model, char path[POCK_PATH_BYTES]);

/* save.c: as pock_save_checkpoint; `run` is a note of the training loop, or NULL. */
pk_status state_save(pock_model *model, const char *path, uint32_t flags, const char *run);

#endif
