/* Checkpoints of a run, and going on from them. */
#define _GNU_SOURCE
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { NOTE_BYTES = 256 };

uint64_t run_now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

void run_report(run *r, pock_report *filled)
{
    uint64_t step = 0;
    int64_t seed = 0;
    const pock_train_options *o = r->options;
    (void)r->model->core.progress_get(r->model->context, &step, &seed);
    filled->epoch = (uint32_t)((r->done == 0u ? 0u : r->done - 1u) / r->epoch_steps) + 1u;
    filled->step = step;
    filled->done = r->done;
    filled->total = r->total;
    if (o->on_report != NULL && o->on_report(o->user, filled) != 0) {
        r->stop = true;
    }
}

pk_status run_lock(run *r)
{
    char lock[POCK_PATH_BYTES];
    char path[POCK_PATH_BYTES];
    pock_error *error = &r->model->error;
    if (r->options->checkpoint == NULL) {
        return PK_OK;
    }
    if (!path_resolve(path, r->options->checkpoint)) {
        return write_failed(error, r->options->checkpoint);
    }
    const char *name = path_name(path);
    if (snprintf(lock, sizeof lock, "%.*s.%s.lock", (int)(name - path), path, name) >=
        (int)sizeof lock) {
        errno = ENAMETOOLONG;
        return write_failed(error, path);
    }
    r->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (r->lock < 0) {
        return write_failed(error, path);
    }
    const pk_status status = lock_file(r->lock);
    if (status == PK_E_BUSY) {
        return pock_fail(error, PK_E_BUSY, "checkpoint-busy",
                         "wait for it to end, or choose another --checkpoint",
                         "another process is training with the checkpoint %s", path);
    }
    return status == PK_OK ? PK_OK : write_failed(error, path);
}

static void make_note(const run *r, char note[NOTE_BYTES])
{
    (void)snprintf(note, NOTE_BYTES,
                   "start=%" PRIu64 " rows=%" PRIu64 " shuffle=%d seed=%" PRId64
                   " evaluated=%" PRIu64 " worse=%" PRIu32 " best=%a",
                   r->at.start, r->data->rows, r->options->shuffle != 0,
                   r->options->shuffle != 0 ? r->options->seed : 0, r->at.evaluated, r->at.worse,
                   r->at.best);
}

pk_status run_save(run *r)
{
    char note[NOTE_BYTES];
    pock_report filled = {.event = POCK_CHECKPOINT};
    if (r->options->checkpoint == NULL || r->saved == r->done) {
        return PK_OK;
    }
    make_note(r, note);
    const pk_status status = state_save(r->model, r->options->checkpoint, 0, note);
    if (status == PK_OK) {
        r->saved = r->done;
        r->saved_ns = run_now_ns();
        run_report(r, &filled);
    }
    return status;
}

/* What a checkpoint notes of its run must be true of this one, or it would not go on but begin
 * something else. */
static pk_status take_note(run *r, const tensor_file *f)
{
    json value = {NULL, NULL};
    char note[NOTE_BYTES];
    uint64_t rows = 0;
    int64_t seed = 0;
    int shuffle = 0;
    const bool shuffled = r->options->shuffle != 0;
    if (!json_find(f->metadata, "pock.run", &value) || !json_string(value, note, sizeof note)) {
        return PK_OK; /* of another trainer: the step count says how far it was */
    }
    if (sscanf(note,
               "start=%" SCNu64 " rows=%" SCNu64 " shuffle=%d seed=%" SCNd64 " evaluated=%" SCNu64
               " worse=%" SCNu32 " best=%la",
               &r->at.start, &rows, &shuffle, &seed, &r->at.evaluated, &r->at.worse,
               &r->at.best) != 7) {
        return tensor_file_damaged(f->path, "its note of the run is unreadable", f->error);
    }
    if (rows == r->data->rows && (shuffle != 0) == shuffled &&
        (!shuffled || seed == r->options->seed)) {
        return PK_OK;
    }
    return pock_fail(f->error, PK_E_MISMATCH, "resume-mismatch",
                     "give the same data, --seed and --no-shuffle as before, or leave --resume out",
                     "the run of %s had %" PRIu64 " rows, shuffle %d, seed %" PRId64
                     "; this one has %" PRIu64 ", %d, %" PRId64,
                     f->path, rows, shuffle, seed, r->data->rows, (int)shuffled, r->options->seed);
}

pk_status run_resume(run *r)
{
    tensor_file f;
    struct stat info;
    uint64_t step = 0;
    int64_t seed = 0;
    pock_model *model = r->model;
    const char *path = r->options->checkpoint;
    pk_status status = PK_OK;
    bool loaded = false;
    r->at.start = 0;
    if (path != NULL && stat(path, &info) == 0) {
        status = tensor_file_open(&f, path, &model->error);
        if (status == PK_OK) {
            status = take_note(r, &f);
            status = status == PK_OK ? state_load(model, &f) : status;
            tensor_file_close(&f);
            loaded = status == PK_OK;
        }
    }
    if (status != PK_OK) {
        return status;
    }
    (void)model->core.progress_get(model->context, &step, &seed);
    r->done = step > r->at.start ? step - r->at.start : 0u;
    if (loaded) {
        r->saved = r->done;
    }
    pock_report filled = {.event = POCK_RESUMED};
    run_report(r, &filled);
    return PK_OK;
}
