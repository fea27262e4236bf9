#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { MAX_INPUTS = 32 };

/* A batch of random values, one array per input. */
typedef struct batch {
    void *arrays[MAX_INPUTS];
    uint32_t count;
    uint64_t bytes;
} batch;

/* Marsaglia, Xorshift RNGs, 2003. */
static uint32_t random_bits(void)
{
    static uint32_t x = 2463534242u;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return x;
}

static void fill_array(const pock_input *input, uint8_t *to, uint64_t nbytes)
{
    const pk_dtype dtype = input->tensor->dtype;
    const uint64_t range = input->ranged != 0 ? (uint64_t)(input->high - input->low) + 1u : 2u;
    const int64_t low = input->ranged != 0 ? input->low : 0;
    const uint64_t width = dtype == PK_F64 || dtype == PK_I64 ? 8u
                           : dtype == PK_F32 || dtype == PK_I32 ? 4u
                           : dtype == PK_F16 || dtype == PK_BF16 || dtype == PK_I16 ? 2u
                                                                                     : 1u;
    for (uint64_t i = 0; i + width <= nbytes; i += width) {
        const uint32_t bits = random_bits();
        const int64_t integer = low + (int64_t)(range == 0u ? 0u : bits % range);
        const double number = (double)bits / 2147483648.0 - 1.0;
        const float single = (float)number;
        const uint16_t half = (uint16_t)(bits & 0x83ffu); /* small, of either 16-bit type */
        if (dtype == PK_F64) {
            memcpy(to + i, &number, sizeof number);
        } else if (dtype == PK_F32) {
            memcpy(to + i, &single, sizeof single);
        } else if (dtype == PK_F16 || dtype == PK_BF16) {
            memcpy(to + i, &half, sizeof half);
        } else {
            memcpy(to + i, &integer, (size_t)width); /* little-endian */
        }
    }
}

static bool make_batch(pock_model *model, uint32_t parts, batch *b)
{
    pock_input input;
    while (b->count < MAX_INPUTS &&
           pock_input_at(model, "train_step", b->count, &input) == PK_OK) {
        const uint64_t bytes = input.tensor->nbytes * parts;
        uint8_t *made = malloc((size_t)bytes + 1u);
        if (made == NULL) {
            return false;
        }
        b->arrays[b->count] = made;
        b->count++;
        b->bytes += bytes;
        /* What is not by row is the same in every part. */
        fill_array(&input, made, input.batched != 0 ? bytes : input.tensor->nbytes);
        for (uint32_t p = 1; p < parts && input.batched == 0; p++) {
            memcpy(made + p * input.tensor->nbytes, made, (size_t)input.tensor->nbytes);
        }
    }
    return true;
}

static int by_size(const void *a, const void *b)
{
    const double s = *(const double *)a;
    const double t = *(const double *)b;
    return (s > t) - (s < t);
}

typedef struct results {
    double start_ms; /* from main to the end of the first step */
    double first_ms;
    double median_ms;
    double p95_ms;
    double least_ms;
    uint64_t steps;
} results;

static bool time_steps(pock_model *model, const batch *b, double *times, results *r,
                       pock_profile *profile)
{
    float loss = 0.0f;
    for (uint64_t i = 0; i <= r->steps; i++) {
        const uint64_t begin = now_ns();
        /* A rate of 0: the work is the same, and nothing can diverge. */
        if (pock_train_step(model, 0.0f, (const void *const *)b->arrays, &loss) != PK_OK) {
            return false;
        }
        const uint64_t end = now_ns();
        pock_profile_step(profile, end - begin);
        if (i == 0u) {
            r->start_ms = (double)(end - process_begin_ns) / 1e6;
            r->first_ms = (double)(end - begin) / 1e6;
        } else {
            times[i - 1u] = (double)(end - begin) / 1e6;
        }
    }
    qsort(times, (size_t)r->steps, sizeof times[0], by_size);
    r->least_ms = times[0];
    r->median_ms = times[r->steps / 2u];
    r->p95_ms = times[(r->steps * 95u + 99u) / 100u - 1u];
    return true;
}

static uint64_t without(uint64_t bytes, uint64_t part)
{
    return bytes > part ? bytes - part : 0u;
}

static void print(const pock_info *info, const batch *b, const results *r, bool json)
{
    if (json) {
        json_begin("bench");
        json_count("steps", r->steps);
        json_count("threads", info->threads);
        json_count("batch_rows", info->batch_rows);
        json_number("start_ms", r->start_ms);
        json_number("first_step_ms", r->first_ms);
        json_number("median_ms", r->median_ms);
        json_number("p95_ms", r->p95_ms);
        json_number("min_ms", r->least_ms);
        json_number("rows_per_s", (double)info->batch_rows * 1e3 / r->median_ms);
        json_count("planned_bytes", info->memory.total_bytes);
        json_count("frozen_bytes", info->memory.frozen_bytes);
        json_count("batch_bytes", b->bytes);
        json_count("private_bytes", without(private_bytes(), b->bytes));
        json_count("peak_bytes", peak_bytes());
        json_end();
        return;
    }
    (void)printf("step     median %.3g ms, 95 %% below %.3g ms, least %.3g ms (%" PRIu64
                 " steps, %u threads)\n",
                 r->median_ms, r->p95_ms, r->least_ms, r->steps, info->threads);
    (void)printf("rows     %.4g per second\n", (double)info->batch_rows * 1e3 / r->median_ms);
    (void)printf("start    %.3g ms to the end of the first step, which took %.3g ms\n", r->start_ms,
                 r->first_ms);
    (void)printf("memory   %s planned, %s frozen, %s for the random batch; the process took %s of its "
                 "own besides the batch, %s at the peak with what it maps\n",
                 size_text(info->memory.total_bytes), size_text(info->memory.frozen_bytes),
                 size_text(b->bytes), size_text(without(private_bytes(), b->bytes)),
                 size_text(peak_bytes()));
}

int run_bench(int argc, char **argv)
{
    const char *artifact = NULL;
    uint64_t threads = 0;
    bool json = false;
    bool no_verify = false;
    results r = {.steps = 20};
    profiling profiled = {NULL, 0, 0.0, NULL};
    batch b = {{NULL}, 0, 0};
    const option options[] = {{"--steps", OPTION_COUNT, &r.steps, 1},
                              {"--threads", OPTION_COUNT, &threads, 1},
                              {"--json", OPTION_FLAG, &json, 0},
                              {"--profile", OPTION_TEXT, &profiled.path, 0},
                              {"--no-verify", OPTION_FLAG, &no_verify, 0}};
    if (!read_options(argc, argv, options, sizeof options / sizeof options[0], &artifact)) {
        return EXIT_USAGE;
    }
    profiling_before(&profiled);
    pock_model *model = open_model(artifact, threads, no_verify ? POCK_UNVERIFIED : 0u);
    if (model == NULL) {
        return EXIT_ERROR;
    }
    pock_info info;
    int result = EXIT_ERROR;
    double *times = r.steps > SIZE_MAX / sizeof *times - 1u
                        ? NULL
                        : malloc((size_t)(r.steps + 1u) * sizeof *times);
    (void)pock_info_get(model, &info);
    if (times == NULL || !make_batch(model, info.micro_batches, &b)) {
        (void)fprintf(stderr, "[not-enough-memory] there is no memory for a batch\n    fix  close "
                              "other programs\n");
    } else if (profiling_begin(&profiled, model, r.steps) != PK_OK ||
               !time_steps(model, &b, times, &r, profiled.profile)) {
        result = fail(model, json);
    } else {
        print(&info, &b, &r, json);
        result = profiling_write(&profiled, model, b.bytes) == PK_OK ? 0 : fail(model, json);
    }
    pock_profile_end(profiled.profile);
    for (uint32_t i = 0; i < b.count; i++) {
        free(b.arrays[i]);
    }
    free(times);
    pock_close(model);
    return result;
}
