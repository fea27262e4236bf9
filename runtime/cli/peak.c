/* What the processor can do at most with some threads: fused multiply-adds out of registers, and
 * STREAM's triad over memory (McCalpin, 1995). Both are 0 where threads or memory
 * are lacking. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cli.h"

/* Enough chains to hide the latency of an FMA (4 cycles, 2 units). */
enum { CHAINS = 12, WIDEST = 16, REPEATS = 8, MAX_THREADS = 64 };
enum { PASSES = 16 }; /* long against the time until a new thread has a processor */
enum { TRIAD_FLOATS = 4 << 20 }; /* 16 MiB an array, more than the caches of a board */

/* The artifact's pock-run is made by Clang; other compilers do not know its pragmas. */
#if defined(__clang__)
#define FUSE_AND_UNROLL _Pragma("clang fp contract(fast)") _Pragma("clang loop unroll(full)")
#define WIDE_LOOP _Pragma("clang loop vectorize_width(4) interleave_count(4)") /* -Os would not */
#else
#define FUSE_AND_UNROLL
#define WIDE_LOOP
#endif

/* Runs CHAINS vectors of LANES floats `rounds` times through s = s * a + b. */
#define FMA_LOOP(name, lanes, attributes)                                                          \
    attributes static void name(uint64_t rounds, float *sums)                                      \
    {                                                                                              \
        typedef float vec __attribute__((vector_size(lanes * 4)));                                 \
        vec c[CHAINS];                                                                             \
        vec a;                                                                                     \
        vec b;                                                                                     \
        for (int i = 0; i < lanes; i++) {                                                          \
            a[i] = 0.5f;                                                                           \
            b[i] = 1.0f;                                                                           \
        }                                                                                          \
        memcpy(c, sums, sizeof c);                                                                 \
        for (uint64_t r = 0; r < rounds; r++) {                                                    \
            FUSE_AND_UNROLL                                                                        \
            for (int k = 0; k < CHAINS; k++) {                                                     \
                c[k] = c[k] * a + b;                                                               \
            }                                                                                      \
        }                                                                                          \
        memcpy(sums, c, sizeof c);                                                                 \
    }

typedef void (*fma_loop)(uint64_t rounds, float *sums);

FMA_LOOP(fma_plain, 4, )
#if defined(__x86_64__)
FMA_LOOP(fma_avx2, 8, __attribute__((target("avx2,fma"))))
FMA_LOOP(fma_avx512, 16, __attribute__((target("avx512f"))))
#endif

static void cpu_field(const char *const *keys, char *text, size_t capacity)
{
    static char line[16384];
    FILE *file = fopen("/proc/cpuinfo", "r");
    text[0] = '\0';
    while (file != NULL && text[0] == '\0' && fgets(line, (int)sizeof line, file) != NULL) {
        const char *value = strchr(line, ':');
        for (int i = 0; value != NULL && keys[i] != NULL; i++) {
            if (strncmp(line, keys[i], strlen(keys[i])) == 0) {
                (void)snprintf(text, capacity, "%s", value[1] == ' ' ? value + 2 : value + 1);
                text[strcspn(text, "\n")] = '\0';
            }
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
}

const char *cpu_name(void)
{
    static const char *const keys[] = {"model name", "Model", "Hardware", NULL};
    static char name[128];
    cpu_field(keys, name, sizeof name);
    return name;
}

static fma_loop choose_loop(uint32_t *lanes)
{
    *lanes = 4;
#if defined(__x86_64__)
    static const char *const keys[] = {"flags", NULL};
    static char flags[16384];
    cpu_field(keys, flags, sizeof flags);
    if (strstr(flags, "avx512f") != NULL) {
        *lanes = 16;
        return fma_avx512;
    }
    if (strstr(flags, "avx2") != NULL && strstr(flags, "fma") != NULL) {
        *lanes = 8;
        return fma_avx2;
    }
#endif
    return fma_plain;
}

typedef struct worker {
    pthread_t thread;
    fma_loop loop;
    uint64_t rounds;
    float *to; /* NULL: multiply-adds */
    const float *b;
    const float *c;
    size_t count;
} worker;

static void triad(size_t count, const float *restrict b, const float *restrict c,
                  float *restrict to)
{
    WIDE_LOOP
    for (size_t i = 0; i < count; i++) {
        to[i] = b[i] + 3.0f * c[i];
    }
}

static void *work(void *argument)
{
    worker *w = argument;
    if (w->to == NULL) {
        float sums[CHAINS * WIDEST];
        for (int i = 0; i < CHAINS * WIDEST; i++) {
            sums[i] = 1.0f;
        }
        w->loop(w->rounds, sums);
        volatile float used = sums[0];
        (void)used;
        return NULL;
    }
    for (uint64_t r = 0; r < w->rounds; r++) {
        triad(w->count, w->b, w->c, w->to);
    }
    return NULL;
}

/* Nanoseconds of the fastest repetition; 0 if threads are lacking. */
static uint64_t fastest(worker *workers, uint32_t threads)
{
    uint64_t best = 0;
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        const uint64_t begin = now_ns();
        uint32_t started = 1;
        while (started < threads &&
               pthread_create(&workers[started].thread, NULL, work, &workers[started]) == 0) {
            started++;
        }
        (void)work(&workers[0]);
        for (uint32_t t = 1; t < started; t++) {
            (void)pthread_join(workers[t].thread, NULL);
        }
        const uint64_t taken = now_ns() - begin;
        if (started < threads) {
            return 0;
        }
        best = best == 0u || taken < best ? taken : best;
    }
    return best;
}

static double multiply_add_gflops(worker *workers, uint32_t threads)
{
    uint32_t lanes = 0;
    const fma_loop loop = choose_loop(&lanes);
    uint64_t rounds = 10000;
    uint64_t ns = 0;
    /* Long against the start of a thread, short for a person. */
    while (ns < UINT64_C(10000000)) {
        rounds *= 4u;
        for (uint32_t t = 0; t < threads; t++) {
            workers[t] = (worker){.loop = loop, .rounds = rounds};
        }
        ns = fastest(workers, threads);
        if (ns == 0u) {
            return 0.0;
        }
    }
    return 2.0 * (double)rounds * (double)CHAINS * lanes * threads / (double)ns;
}

static double triad_gbs(worker *workers, uint32_t threads)
{
    const size_t bytes = (size_t)TRIAD_FLOATS * 3u * sizeof(float);
    void *memory = NULL;
    if (posix_memalign(&memory, (size_t)2 << 20, bytes) != 0) {
        return 0.0;
    }
#if defined(MADV_HUGEPAGE)
    (void)madvise(memory, bytes, MADV_HUGEPAGE); /* the memory's rate, not that of its tables */
#endif
    float *arrays = memory;
    const size_t share = TRIAD_FLOATS / threads;
    memset(arrays, 1, bytes); /* pages of their own */
    for (uint32_t t = 0; t < threads; t++) {
        float *to = arrays + t * share;
        workers[t] = (worker){
            .rounds = PASSES, .to = to, .b = to + TRIAD_FLOATS, .c = to + (size_t)2 * TRIAD_FLOATS, .count = share};
    }
    const uint64_t ns = fastest(workers, threads);
    free(arrays);
    return ns == 0u ? 0.0 : 12.0 * (double)share * threads * (double)PASSES / (double)ns;
}

peak measure_peak(uint32_t threads)
{
    static worker workers[MAX_THREADS];
    const uint32_t used = threads < MAX_THREADS ? threads : MAX_THREADS;
    const peak found = {multiply_add_gflops(workers, used), triad_gbs(workers, used)};
    return found;
}
