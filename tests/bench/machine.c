/* What the processor can do at most: fused multiply-adds out of registers, and a triad over memory. */
#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

/* Enough chains to hide the latency of an FMA (4 cycles, 2 units), few enough to stay in registers. */
#define CHAINS 12

typedef float vec __attribute__((vector_size(LANES * 4)));

/* Runs `rounds` times CHAINS vector FMAs. Every element of `sums` (CHAINS * LANES floats) goes from s to
 * rounds of s = s * scale + add. Returns the number of multiply-adds. */
uint64_t bench_fma(uint64_t rounds, float scale, float add, float *sums) {
    vec chain[CHAINS], a, b;
    for (int i = 0; i < LANES; i++) {
        a[i] = scale;
        b[i] = add;
    }
    for (int c = 0; c < CHAINS; c++)
        for (int i = 0; i < LANES; i++) chain[c][i] = sums[c * LANES + i];
    for (uint64_t r = 0; r < rounds; r++) {
#pragma clang loop unroll(full)
        for (int c = 0; c < CHAINS; c++) chain[c] = __builtin_elementwise_fma(chain[c], a, b);
    }
    for (int c = 0; c < CHAINS; c++)
        for (int i = 0; i < LANES; i++) sums[c * LANES + i] = chain[c][i];
    return rounds * CHAINS * LANES;
}

uint32_t bench_fma_floats(void) { return CHAINS * LANES; }

/* STREAM's triad (McCalpin, 1995): to = b + scale * c. Moves 3 * 4 * count bytes, as STREAM counts. */
void bench_triad(size_t count, float scale, const float *restrict b, const float *restrict c, float *restrict to) {
    for (size_t i = 0; i < count; i++) to[i] = b[i] + scale * c[i];
}
