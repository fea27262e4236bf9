/* pock.h: fine-tune a compiled model on a device.
 *
 *     pock_model *model = NULL;
 *     if (pock_open("model.pock", NULL, &model) != PK_OK) {
 *         fprintf(stderr, "%s\n", pock_message(model));
 *     }
 *     pock_data *data = NULL;
 *     pock_data_open(model, "train_step", "train.npz", &data);
 *     pock_train(model, data, NULL);
 *     pock_save(model, "model.pock");
 *     pock_data_close(data);
 *     pock_close(model);
 *
 * Opens the folder that `pockc compile` wrote: checks it, loads its code, maps what is frozen and
 * reads what is trained. Nothing here prints or exits. Every call that can fail returns a status
 * and leaves a message in the model. The memory that a step needs is taken by pock_open; saving,
 * loading and opening data take a few KiB for as long as they last.
 *
 * A model belongs to one thread at a time; different models are independent. Strings are UTF-8.
 */
#ifndef POCK_H
#define POCK_H

#include "pock_core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Grows with every change of a declaration below. */
#define POCK_ABI_VERSION 2u

typedef struct pock_model pock_model;

PK_API uint32_t pock_abi_version(void);
PK_API const char *pock_status_text(pk_status status);
/* What the last call that failed found, in full: what, and how to go on. Never NULL. */
PK_API const char *pock_message(const pock_model *model);

/* Do not compare the files with their hashes: for a start that cannot wait, of files that were
 * verified before. Sizes are checked all the same. */
#define POCK_UNVERIFIED 1u
/* Read the manifest only: nothing can be run. For artifacts of other machines. */
#define POCK_MANIFEST_ONLY 2u

typedef struct pock_open_options {
    uint32_t threads; /* that run kernels; 0: one per processor that this process may use */
    uint32_t flags;
} pock_open_options;

/* Open an artifact's folder. `options` may be NULL. Refuses before anything is allocated what
 * needs more private memory than there is. Unless memory is lacking even for the message, `*model`
 * is set whatever the status, for pock_message and pock_close. */
PK_API pk_status pock_open(const char *folder, const pock_open_options *options,
                           pock_model **model);
PK_API void pock_close(pock_model *model);

typedef struct pock_info {
    pk_memory memory;       /* what it takes; runtime_bytes is 0 with POCK_MANIFEST_ONLY */
    uint64_t available_bytes; /* that the system can give now; UINT64_MAX if it does not tell */
    uint64_t step;          /* training steps taken */
    int64_t seed;
    float learning_rate;    /* used where none is given */
    uint32_t batch_rows;    /* rows of one training step, micro-batches together */
    uint32_t micro_batches;
    uint32_t threads;
    uint32_t class_count;   /* 0 if the classes have no names */
    uint32_t input_count;   /* of `train_step`, the target included */
    const char *producer;
    const char *target;
    const char *arch;
} pock_info;

/* The numbers and strings hold until the next call. */
PK_API pk_status pock_info_get(pock_model *model, pock_info *info);
/* The name of a class, or NULL. Holds until the next call. */
PK_API const char *pock_class_name(pock_model *model, uint32_t number);
/* What goes into an entry. */
typedef struct pock_input {
    const pk_tensor *tensor; /* of one call; with micro-batches a step takes that many times it */
    int32_t batched;         /* whether the first dimension counts rows */
    int32_t ranged;          /* whether only integers from `low` to `high` are taken */
    int64_t low;
    int64_t high;
} pock_input;

/* By position, the target last. PK_E_NOT_FOUND behind the last one, or if there is no such entry. */
PK_API pk_status pock_input_at(pock_model *model, const char *entry, uint32_t number,
                               pock_input *input);
/* What comes out of an entry, likewise. */
PK_API pk_status pock_output_at(pock_model *model, const char *entry, uint32_t number,
                                const pk_tensor **tensor);
/* Of the steps to come, as for dropout. */
PK_API pk_status pock_set_seed(pock_model *model, int64_t seed);
/* The context under the model, for what pock_core.h offers beyond this header, and its library's
 * symbols by name. NULL with POCK_MANIFEST_ONLY. */
PK_API pk_context *pock_context(pock_model *model);
PK_API void *pock_symbol(pock_model *model, const char *name);

/* Tensors of the model and of its optimizer, row-major in their logical shape. */
PK_API pk_status pock_tensor_find(pock_model *model, const char *name, const pk_tensor **tensor);
PK_API pk_status pock_tensor_get(pock_model *model, const char *name, void *target,
                                 uint64_t nbytes);
PK_API pk_status pock_tensor_set(pock_model *model, const char *name, const void *source,
                                 uint64_t nbytes);

/* One step on whole batches: a pointer per input of `train_step`, the target last, each
 * `batch_rows` rows in its own type. A negative `lr` is the rate that was compiled in. */
PK_API pk_status pock_train_step(pock_model *model, float lr, const void *const *inputs,
                                 float *loss);
/* The first prediction of any number of rows: `outputs` gets as many rows of it as given. */
PK_API pk_status pock_predict(pock_model *model, uint64_t rows, const void *const *inputs,
                              void *outputs);

/* --- Files of the state ------------------------------------------------------------------- */

/* Write frozen tensors too, so that the file is the whole state_dict. */
#define POCK_FULL 1u

/* Write a safetensors file, which PyTorch reads. It is replaced at once and only when it is
 * complete; the one before stays as `<path>.previous`. */
PK_API pk_status pock_save_checkpoint(pock_model *model, const char *path, uint32_t flags);
/* Take everything from a checkpoint or from a state_dict; nothing is changed if it does not fit. */
PK_API pk_status pock_load_checkpoint(pock_model *model, const char *path);
/* Write the artifact with its present weights, replacing an older one, itself included. */
PK_API pk_status pock_save(pock_model *model, const char *folder);
/* Write the state_dict, tied tensors under each name, without the optimizer. */
PK_API pk_status pock_export(pock_model *model, const char *path);

/* --- Data --------------------------------------------------------------------------------- */

typedef struct pock_data pock_data;

/* Open data for an entry: "train_step", "evaluate" or "predict". `path` is an .npz or .safetensors
 * file with an array for each input by name, an .npy file for an entry with one input, or a folder
 * (runtime/README.md). Files are mapped, so they may be larger than memory. */
PK_API pk_status pock_data_open(pock_model *model, const char *entry, const char *path,
                                pock_data **data);
PK_API void pock_data_close(pock_data *data);
PK_API uint64_t pock_data_rows(const pock_data *data);

typedef struct pock_figures {
    double loss;     /* NaN if the entry has none */
    double accuracy; /* NaN if the model does not classify */
    uint64_t samples;
} pock_figures;

/* Every row counts once, the last batch however small it is. */
PK_API pk_status pock_evaluate(pock_model *model, pock_data *data, pock_figures *figures);

/* Called with the results of `rows` rows, from number `first` on: one pointer per output of the
 * entry. Anything but 0 stops. */
typedef int (*pock_on_rows)(void *user, uint64_t first, uint64_t rows,
                            const void *const *outputs);
/* Run `predict` on all rows. */
PK_API pk_status pock_predict_data(pock_model *model, pock_data *data, pock_on_rows on_rows,
                                   void *user);

/* --- Training ----------------------------------------------------------------------------- */

typedef enum pock_schedule { POCK_CONSTANT = 0, POCK_LINEAR = 1, POCK_COSINE = 2 } pock_schedule;

typedef enum pock_event {
    POCK_STEP = 0,       /* a step is done: loss, lr, step_ns */
    POCK_EPOCH = 1,      /* an epoch is done: loss is its mean, step_ns its median */
    POCK_EVALUATION = 2, /* figures */
    POCK_CHECKPOINT = 3, /* written */
    POCK_RESUMED = 4,    /* the run goes on behind `step` */
    POCK_EARLY_STOP = 5  /* the evaluation has not become better */
} pock_event;

typedef struct pock_report {
    pock_event event;
    uint32_t epoch; /* from 1 */
    uint64_t step;  /* that the model has taken, earlier runs included */
    uint64_t done;  /* steps of this run */
    uint64_t total; /* that this run will take */
    double loss;
    double lr;
    uint64_t step_ns;
    pock_figures figures;
} pock_report;

/* Called after every event; anything but 0 stops the run: the step is finished, a checkpoint is
 * written, and pock_train returns PK_E_STOPPED. */
typedef int (*pock_on_report)(void *user, const pock_report *report);

typedef struct pock_train_options {
    uint32_t epochs;
    int32_t shuffle; /* rows in another order in every epoch, by `seed` and epoch alone */
    int64_t seed;
    double lr; /* peak; negative: the one compiled in */
    pock_schedule schedule;
    int32_t resume; /* go on from `checkpoint`, if it is there, else from the artifact's steps */
    uint64_t warmup_steps;
    double final_lr;       /* share of the peak at which linear and cosine end */
    pock_data *evaluation; /* of "evaluate"; may be NULL */
    uint64_t eval_steps;   /* evaluate every so many steps; 0: after each epoch */
    uint32_t early_stop;   /* evaluations without a better loss before it stops; 0: never */
    uint32_t reserved;
    const char *checkpoint; /* a .safetensors file; NULL: none. Written after each epoch as well */
    uint64_t checkpoint_steps;
    double checkpoint_minutes;
    pock_on_report on_report;
    void *user;
} pock_train_options;

/* One epoch, shuffled, at the rate that was compiled in, without anything else. */
PK_API void pock_train_defaults(pock_train_options *options);
/* Train. After PK_E_NONFINITE the model is back at the last checkpoint, if there is one. */
PK_API pk_status pock_train(pock_model *model, pock_data *data,
                            const pock_train_options *options);
/* The rate of a step, counted from 0, of `total`. */
PK_API double pock_learning_rate(const pock_train_options *options, double peak, uint64_t step,
                                 uint64_t total);
/* Which row comes at a position of an epoch (from 0); the order of the Python trainer. */
PK_API uint64_t pock_row_at(uint64_t rows, int64_t seed, uint64_t epoch, uint64_t position);

/* --- Profiles ----------------------------------------------------------------------------- */

typedef struct pock_profile pock_profile;

/* What a profile tells besides what it recorded. */
typedef struct pock_profile_facts {
    double load_ms;            /* until the model was open */
    double peak_gflops;        /* that these threads reach, 10^9 per second; 0: unknown */
    double peak_gbs;           /* bytes of memory, likewise */
    uint64_t rss_before_bytes; /* resident before the model was opened; 0: unknown */
    uint64_t rss_peak_bytes;
    uint64_t batch_bytes;      /* of the peak: input data that the caller holds */
    const char *cpu;           /* name of the processor; may be NULL */
} pock_profile_facts;

/* Record the training steps to come: the first one's time, and every kernel call of `steps` steps
 * behind it. Takes all of its memory now. End it before the model is closed. */
PK_API pk_status pock_profile_begin(pock_model *model, uint32_t steps, pock_profile **profile);
/* Call it after each step, with the time that it took. */
PK_API void pock_profile_step(pock_profile *profile, uint64_t step_ns);
/* Write what was recorded as JSON; `pockc profile --from FILE MODEL.pock` shows it. The file is
 * replaced when it is complete. */
PK_API pk_status pock_profile_write(pock_profile *profile, const pock_profile_facts *facts,
                                    const char *path);
PK_API void pock_profile_end(pock_profile *profile);

#ifdef __cplusplus
}
#endif

#endif
