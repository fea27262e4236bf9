/* The training loop: epochs, learning-rate schedule, evaluation, checkpoints (training.py).
 *
 * The order of the rows and the rate are functions of the step's number alone; with the state of a
 * checkpoint, and the run's note in it, a run goes on exactly where it was.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "run.h"

void pock_train_defaults(pock_train_options *options)
{
    if (options != NULL) {
        memset(options, 0, sizeof *options);
        options->epochs = 1;
        options->shuffle = 1;
        options->lr = -1.0;
    }
}

double pock_learning_rate(const pock_train_options *options, double peak, uint64_t step,
                          uint64_t total)
{
    const uint64_t warmup = options->warmup_steps;
    if (step < warmup) {
        return peak * (double)(step + 1u) / (double)warmup;
    }
    if (options->schedule == POCK_CONSTANT) {
        return peak;
    }
    const uint64_t span = total > warmup + 1u ? total - warmup : 1u;
    const double part = (double)(step - warmup) / (double)span;
    const double done = part < 1.0 ? part : 1.0;
    const double pi = 3.14159265358979323846;
    const double share =
        options->schedule == POCK_LINEAR ? 1.0 - done : 0.5 * (1.0 + cos(pi * done));
    return peak * (options->final_lr + (1.0 - options->final_lr) * share);
}

/* --- Steps -------------------------------------------------------------------------------- */

static row_pick pick_of(run *r)
{
    const uint64_t epoch = r->done / r->epoch_steps;
    if (r->order_epoch != epoch) {
        order_begin(&r->order, r->data->rows, r->options->seed, epoch);
        r->order_epoch = epoch;
    }
    const uint64_t rows = r->data->entry->rows * r->model->manifest.micro_batches;
    const row_pick pick = {r->options->shuffle != 0 ? &r->order : NULL,
                           r->done % r->epoch_steps * rows, rows};
    return pick;
}

typedef struct filler {
    const pock_data *data;
    row_pick pick;
} filler;

static pk_status fill(void *user, uint32_t micro_batch)
{
    const filler *f = user;
    row_pick part = f->pick;
    const uint64_t rows = f->data->entry->rows;
    part.first += micro_batch * rows;
    part.rows = rows;
    return data_place(f->data, &part, rows);
}

/* Go back to the last good state, if one was kept, and say so. */
static pk_status nonfinite(run *r, const row_pick *pick, float loss, double rate)
{
    pock_model *model = r->model;
    char what[256];
    char fix[POCK_PATH_BYTES + 256];
    const char *input = NULL;
    uint64_t step = 0;
    int64_t seed = 0;
    (void)model->core.progress_get(model->context, &step, &seed);
    int used = snprintf(what, sizeof what, "the loss of step %" PRIu64 " is %g, with learning rate %g",
                        step + 1u, (double)loss, rate);
    const uint64_t row = data_find_nonfinite(r->data, pick, pick->rows, &input);
    if (row != UINT64_MAX) {
        (void)snprintf(what + used, sizeof what - (size_t)used,
                       "; row %" PRIu64 " of '%.64s' holds a NaN or an infinity", row, input);
    }
    model->diverged = model->manifest.micro_batches == 1u;
    used = snprintf(fix, sizeof fix,
                    "lower the learning rate or clip gradients, and check the data for NaN");
    if (!model->diverged) {
        (void)snprintf(fix + used, sizeof fix - (size_t)used,
                       "; the step was not taken, the model is at step %" PRIu64, step);
    } else if (r->saved == UINT64_MAX) {
        (void)snprintf(fix + used, sizeof fix - (size_t)used,
                       "; then open the artifact again: no checkpoint was kept");
    } else if (pock_load_checkpoint(model, r->options->checkpoint) == PK_OK) {
        (void)model->core.progress_get(model->context, &step, &seed);
        (void)snprintf(fix + used, sizeof fix - (size_t)used,
                       "; the model is back at step %" PRIu64 ", the last good one, from %s", step,
                       r->options->checkpoint);
    }
    return pock_fail(&model->error, PK_E_NONFINITE, "nonfinite-loss", fix, "%s", what);
}

static pk_status take_step(run *r)
{
    pock_model *model = r->model;
    filler f = {r->data, pick_of(r)};
    const double rate = pock_learning_rate(r->options, r->peak, r->done, r->total);
    float loss = 0.0f;
    const uint64_t begin = run_now_ns();
    pk_status status = data_check(r->data, &f.pick, f.pick.rows);
    if (status != PK_OK) {
        return status;
    }
    status = model->core.train_step_placed(model->context, (float)rate, fill, &f, &loss);
    if (status == PK_E_NONFINITE) {
        return nonfinite(r, &f.pick, loss, rate);
    }
    if (status != PK_OK) {
        return model_core_status(model, status);
    }
    pock_report filled = {.event = POCK_STEP, .loss = (double)loss, .lr = rate};
    filled.step_ns = run_now_ns() - begin;
    r->times[r->loss_count % KEPT_TIMES] = filled.step_ns;
    r->loss_sum += (double)loss;
    r->loss_count++;
    r->done++;
    run_report(r, &filled);
    return PK_OK;
}

static int by_size(const void *a, const void *b)
{
    const uint64_t s = *(const uint64_t *)a;
    const uint64_t t = *(const uint64_t *)b;
    return (s > t) - (s < t);
}

static void report_epoch(run *r)
{
    const uint64_t count = r->loss_count < KEPT_TIMES ? r->loss_count : KEPT_TIMES;
    pock_report filled = {.event = POCK_EPOCH};
    if (count > 0u) {
        qsort(r->times, (size_t)count, sizeof r->times[0], by_size);
        filled.loss = r->loss_sum / (double)r->loss_count;
        filled.step_ns = r->times[count / 2u];
    }
    r->loss_sum = 0.0;
    r->loss_count = 0;
    run_report(r, &filled);
}

static bool epoch_ends(const run *r)
{
    return r->done > 0u && r->done % r->epoch_steps == 0u;
}

static bool evaluation_is_due(const run *r)
{
    const pock_train_options *o = r->options;
    if (o->evaluation == NULL || r->done == 0u || r->at.evaluated == r->done) {
        return false;
    }
    return o->eval_steps == 0u ? epoch_ends(r) : r->done % o->eval_steps == 0u || r->done == r->total;
}

static pk_status evaluate(run *r)
{
    pock_report filled = {.event = POCK_EVALUATION};
    const pk_status status = pock_evaluate(r->model, r->options->evaluation, &filled.figures);
    if (status != PK_OK) {
        return status;
    }
    r->at.evaluated = r->done;
    filled.loss = filled.figures.loss;
    if (filled.loss < r->at.best) {
        r->at.best = filled.loss;
        r->at.worse = 0;
    } else {
        r->at.worse++;
    }
    run_report(r, &filled);
    return PK_OK;
}

static bool gives_up(const run *r)
{
    return r->options->early_stop > 0u && r->at.worse >= r->options->early_stop;
}

static bool save_is_due(const run *r)
{
    const pock_train_options *o = r->options;
    const double minutes = (double)(run_now_ns() - r->saved_ns) / 60e9;
    return epoch_ends(r) || (o->checkpoint_steps > 0u && r->done % o->checkpoint_steps == 0u) ||
           (o->checkpoint_minutes > 0.0 && minutes >= o->checkpoint_minutes);
}

static pk_status stopped(run *r)
{
    const pk_status status = run_save(r);
    if (status != PK_OK) {
        return status;
    }
    return pock_fail(&r->model->error, PK_E_STOPPED, "stopped", "go on with --resume",
                     "stopped, as asked, after %" PRIu64 " of %" PRIu64 " steps", r->done, r->total);
}

static pk_status loop(run *r)
{
    pk_status status = evaluation_is_due(r) ? evaluate(r) : PK_OK;
    while (status == PK_OK && r->done < r->total && !r->stop && !gives_up(r)) {
        status = take_step(r);
        if (status == PK_OK && epoch_ends(r)) {
            report_epoch(r);
        }
        if (status == PK_OK && save_is_due(r)) {
            status = run_save(r);
        }
        if (status == PK_OK && evaluation_is_due(r) && !r->stop) {
            status = evaluate(r);
        }
    }
    if (status != PK_OK) {
        return status;
    }
    if (r->stop && r->done < r->total) {
        return stopped(r);
    }
    if (gives_up(r)) {
        pock_report filled = {.event = POCK_EARLY_STOP, .loss = r->at.best};
        run_report(r, &filled);
    }
    return run_save(r);
}

/* --- Options ------------------------------------------------------------------------------ */

static pk_status bad_option(pock_model *model, const char *what, const char *fix)
{
    return pock_fail(&model->error, PK_E_OPTION, "train-option", fix, "%s", what);
}

static pk_status check_options(pock_model *model, const pock_train_options *o)
{
    if (o->epochs == 0u) {
        return bad_option(model, "epochs is 0", "give at least 1");
    }
    if (o->schedule != POCK_CONSTANT && o->schedule != POCK_LINEAR && o->schedule != POCK_COSINE) {
        return bad_option(model, "there is no such schedule",
                          "choose from: constant, linear, cosine");
    }
    if (!isfinite(o->lr) || !isfinite(o->final_lr) || o->final_lr < 0.0) {
        return bad_option(model, "lr or final_lr is not finite, or negative",
                          "give a number that is not negative");
    }
    if (o->early_stop > 0u && o->evaluation == NULL) {
        return bad_option(model, "early stopping without evaluation data", "give --eval");
    }
    if (o->checkpoint == NULL && (o->checkpoint_steps > 0u || o->checkpoint_minutes > 0.0)) {
        return bad_option(model, "how often to write a checkpoint, but not where",
                          "give --checkpoint");
    }
    return PK_OK;
}

static pk_status check_data(pock_model *model, const pock_data *data, const pock_train_options *o)
{
    if (data->model != model || data->entry != &model->entries[ENTRY_TRAIN]) {
        return pock_fail(&model->error, PK_E_ARGUMENT, "data-entry",
                         "open the data for this entry", "data of %s was given to train_step",
                         data->name);
    }
    if (o->evaluation != NULL && (o->evaluation->model != model ||
                                  o->evaluation->entry != &model->entries[ENTRY_EVALUATE])) {
        return pock_fail(&model->error, PK_E_ARGUMENT, "data-entry",
                         "open the data for this entry", "data of %s was given to evaluate",
                         o->evaluation->name);
    }
    if (data->rows < model->manifest.batch_rows) {
        return pock_fail(&model->error, PK_E_DATA_SHAPE, "too-few-rows",
                         "give more data, or compile for a smaller batch",
                         "the data has %" PRIu64 " rows, a step takes %" PRIu64, data->rows,
                         model->manifest.batch_rows);
    }
    return PK_OK;
}

pk_status pock_train(pock_model *model, pock_data *data, const pock_train_options *options)
{
    pock_train_options plain;
    int64_t seed = 0;
    pk_status status = model_check_open(model);
    if (status != PK_OK || data == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    pock_train_defaults(&plain);
    const pock_train_options *o = options == NULL ? &plain : options;
    status = check_options(model, o);
    status = status == PK_OK ? check_data(model, data, o) : status;
    if (status != PK_OK) {
        return status;
    }
    run r = {.model = model, .data = data, .options = o, .lock = -1};
    r.at.best = INFINITY;
    r.order_epoch = UINT64_MAX;
    r.saved = UINT64_MAX;
    r.saved_ns = run_now_ns();
    r.epoch_steps = data->rows / (data->entry->rows * model->manifest.micro_batches);
    r.total = r.epoch_steps * o->epochs;
    r.peak = o->lr < 0.0 ? model->manifest.learning_rate : o->lr;
    (void)model->core.progress_get(model->context, &r.at.start, &seed);
    status = run_lock(&r);
    if (status == PK_OK && o->resume != 0) {
        status = run_resume(&r);
    }
    if (status == PK_OK) {
        status = loop(&r);
    }
    if (r.lock >= 0) {
        (void)close(r.lock);
    }
    return status;
}
