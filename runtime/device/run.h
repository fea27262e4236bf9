/* run.h: a training run: where it stands, what it reports, and how it goes on after an end. */
#ifndef POCK_RUN_H
#define POCK_RUN_H

#include "data.h"

enum { KEPT_TIMES = 1024 };

/* Where a run stands; what a checkpoint notes besides the state. */
typedef struct progress {
    uint64_t start;     /* the artifact's steps before this run */
    uint64_t evaluated; /* steps of this run at its last evaluation */
    double best;        /* loss of the best evaluation */
    uint32_t worse;     /* evaluations since then */
} progress;

typedef struct run {
    pock_model *model;
    pock_data *data;
    const pock_train_options *options;
    progress at;
    uint64_t done;
    uint64_t epoch_steps;
    uint64_t total;
    double peak; /* learning rate */
    row_order order;
    uint64_t order_epoch; /* of `order`; UINT64_MAX: none yet */
    uint64_t saved;       /* steps of this run in the checkpoint; UINT64_MAX: none */
    uint64_t saved_ns;
    double loss_sum; /* of this epoch */
    uint64_t loss_count;
    uint64_t times[KEPT_TIMES]; /* of the last steps */
    int lock;
    bool stop;
} run;

uint64_t run_now_ns(void);
/* Complete a report and hand it to the caller, who may ask to stop. */
void run_report(run *r, pock_report *filled);
/* Let no other process write the checkpoint as long as the run lasts. */
pk_status run_lock(run *r);
/* Write the checkpoint, unless there is none or it is there already. */
pk_status run_save(run *r);
/* Take up where the checkpoint is, or where the artifact is. */
pk_status run_resume(run *r);

#endif
