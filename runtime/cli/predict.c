#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "paths.h"

enum { MAX_OUTPUTS = 16, SHOWN_CLASSES = 3, HEADER_BYTES = 128 };

typedef struct target {
    char path[4096];
    char temporary[4200];
    FILE *file;
} target;

typedef struct writer {
    pock_model *model;
    const char *output; /* NULL: print classes */
    uint64_t rows;      /* of all data */
    uint64_t call_rows;
    const pk_tensor *outputs[MAX_OUTPUTS];
    uint32_t count;
    target targets[MAX_OUTPUTS];
    bool failed;
} writer;

static const char *descr_of(pk_dtype dtype)
{
    static const char *const names[] = {"<f8", "<f4", "<f2", "<u2", "<i8",
                                        "<i4", "<i2", "|i1", "|u1", "|b1"};
    return names[dtype];
}

static uint64_t row_bytes(const writer *w, uint32_t output)
{
    return w->outputs[output]->nbytes / w->call_rows;
}

/* numpy/lib/format.py, version 1.0: a header of a fixed size. */
static bool write_header(const writer *w, uint32_t output)
{
    char text[HEADER_BYTES + 1];
    char shape[96];
    const pk_tensor *t = w->outputs[output];
    int used = snprintf(shape, sizeof shape, "%" PRIu64 ",", w->rows);
    for (uint32_t d = 1; d < t->rank && used < (int)sizeof shape; d++) {
        used += snprintf(shape + used, sizeof shape - (size_t)used, " %" PRId64 ",", t->shape[d]);
    }
    memset(text, ' ', sizeof text);
    memcpy(text, "\x93NUMPY\x01\x00\x76\x00", 10);
    used = snprintf(text + 10, HEADER_BYTES - 10, "{'descr': '%s', 'fortran_order': False, "
                                                  "'shape': (%s), }",
                    descr_of(t->dtype), shape);
    if (used >= HEADER_BYTES - 11) {
        errno = ENAMETOOLONG;
        return false;
    }
    text[10 + used] = ' ';
    text[HEADER_BYTES - 1] = '\n';
    return fwrite(text, 1, HEADER_BYTES, w->targets[output].file) == HEADER_BYTES;
}

static bool open_target(writer *w, uint32_t output)
{
    target *t = &w->targets[output];
    const size_t length = strlen(w->output);
    const bool npy = length > 4u && strcmp(w->output + length - 4u, ".npy") == 0;
    const int stem = (int)(npy && output > 0u ? length - 4u : length);
    char end[24] = "";
    if (output > 0u) {
        (void)snprintf(end, sizeof end, ".%" PRIu32 ".npy", output);
    }
    (void)snprintf(t->path, sizeof t->path, "%.*s%s", stem, w->output, end);
    (void)snprintf(t->temporary, sizeof t->temporary, "%.*s%s.tmp", stem, w->output, end);
    t->file = fopen(t->temporary, "wb");
    return t->file != NULL && write_header(w, output);
}

static int write_rows(void *user, uint64_t first, uint64_t rows, const void *const *outputs)
{
    writer *w = user;
    (void)first;
    for (uint32_t i = 0; i < w->count && !w->failed; i++) {
        const size_t bytes = (size_t)(rows * row_bytes(w, i));
        w->failed = fwrite(outputs[i], 1, bytes, w->targets[i].file) != bytes;
    }
    return w->failed;
}

static bool close_targets(writer *w, bool keep)
{
    bool good = true;
    for (uint32_t i = 0; i < w->count; i++) {
        target *t = &w->targets[i];
        if (t->file == NULL) {
            continue;
        }
        bool done = fflush(t->file) == 0 && fsync(fileno(t->file)) == 0;
        done = fclose(t->file) == 0 && done;
        if (keep && done) {
            good = rename(t->temporary, t->path) == 0 && good;
        } else {
            good = !keep && good;
            (void)unlink(t->temporary);
        }
    }
    return good;
}

static int print_classes(void *user, uint64_t first, uint64_t rows, const void *const *outputs)
{
    writer *w = user;
    const uint32_t classes = (uint32_t)w->outputs[0]->shape[1];
    for (uint64_t r = 0; r < rows; r++) {
        const float *logits = (const float *)outputs[0] + r * classes;
        float top = logits[0];
        double sum = 0.0;
        for (uint32_t c = 1; c < classes; c++) {
            top = logits[c] > top ? logits[c] : top;
        }
        for (uint32_t c = 0; c < classes; c++) {
            sum += exp((double)(logits[c] - top));
        }
        (void)printf("%" PRIu64 ":", first + r);
        uint32_t shown[SHOWN_CLASSES];
        for (uint32_t k = 0; k < SHOWN_CLASSES && k < classes; k++) {
            uint32_t best = UINT32_MAX;
            for (uint32_t c = 0; c < classes; c++) {
                bool taken = false;
                for (uint32_t s = 0; s < k; s++) {
                    taken = taken || shown[s] == c;
                }
                if (!taken && (best == UINT32_MAX || logits[c] > logits[best])) {
                    best = c;
                }
            }
            shown[k] = best;
            const char *name = pock_class_name(w->model, best);
            const double share = exp((double)(logits[best] - top)) / sum;
            if (name != NULL) {
                (void)printf("%s %s %.3f", k > 0u ? "," : "", name, share);
            } else {
                (void)printf("%s %" PRIu32 " %.3f", k > 0u ? "," : "", best, share);
            }
        }
        (void)printf("\n");
    }
    return 0;
}

static bool find_outputs(writer *w)
{
    for (w->count = 0; w->count < MAX_OUTPUTS; w->count++) {
        if (pock_output_at(w->model, "predict", w->count, &w->outputs[w->count]) != PK_OK) {
            break;
        }
    }
    const pk_tensor *t = w->count > 0u ? w->outputs[0] : NULL;
    if (t == NULL || t->rank == 0u || t->shape[0] < 1) {
        return false;
    }
    w->call_rows = (uint64_t)t->shape[0];
    return w->output != NULL || (t->rank == 2u && t->dtype == PK_F32 && t->shape[1] > 0);
}

static int predict(writer *w, pock_data *data)
{
    bool good = true;
    w->rows = pock_data_rows(data);
    if (!find_outputs(w)) {
        (void)fprintf(stderr, "[predict-output] the model returns no class of each row\n    fix  "
                              "write what it returns: -o out.npy\n");
        return EXIT_ERROR;
    }
    if (w->output == NULL) {
        return pock_predict_data(w->model, data, print_classes, w) == PK_OK ? 0
                                                                           : fail(w->model, false);
    }
    for (uint32_t i = 0; i < w->count && good; i++) {
        good = open_target(w, i);
    }
    const pk_status status =
        good ? pock_predict_data(w->model, data, write_rows, w) : PK_OK;
    const int reason = errno;
    good = close_targets(w, good && status == PK_OK) && good;
    if (status != PK_OK && !w->failed) {
        return fail(w->model, false);
    }
    if (!good || w->failed) {
        (void)fprintf(stderr, "[write-failed] cannot write %s: %s\n    fix  free some space, or "
                              "choose another place\n",
                      w->output, strerror(w->failed ? reason : errno));
        return EXIT_ERROR;
    }
    for (uint32_t i = 0; i < w->count; i++) {
        (void)printf("wrote    %" PRIu64 " rows to %s\n", w->rows, w->targets[i].path);
    }
    return 0;
}

int run_predict(int argc, char **argv)
{
    static writer w;
    const char *artifact = NULL;
    const char *path = NULL;
    uint64_t threads = 0;
    bool no_verify = false;
    const option options[] = {{"--data", OPTION_TEXT, &path, 0},
                              {"-o", OPTION_TEXT, &w.output, 0},
                              {"--output", OPTION_TEXT, &w.output, 0},
                              {"--threads", OPTION_COUNT, &threads, 1},
                              {"--no-verify", OPTION_FLAG, &no_verify, 0}};
    if (!read_options(argc, argv, options, sizeof options / sizeof options[0], &artifact)) {
        return EXIT_USAGE;
    }
    if (path == NULL) {
        (void)fprintf(stderr, "[usage] no data was given\n    fix  --data x.npy\n");
        return EXIT_USAGE;
    }
    if (w.output != NULL && !check_writable(w.output)) {
        return EXIT_ERROR;
    }
    w.model = open_model(artifact, threads, no_verify ? POCK_UNVERIFIED : 0u);
    if (w.model == NULL) {
        return EXIT_ERROR;
    }
    pock_data *data = NULL;
    const int result = pock_data_open(w.model, "predict", path, &data) == PK_OK
                           ? predict(&w, data)
                           : fail(w.model, false);
    pock_data_close(data);
    pock_close(w.model);
    return result;
}
