#include "sha256.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

typedef void (*compress_blocks)(uint32_t state[8], const uint8_t *data, size_t blocks);

static uint32_t rotate(uint32_t x, uint32_t by)
{
    return (x >> by) | (x << (32u - by));
}

static uint32_t big_endian(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void compress_portable(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    for (; blocks > 0u; blocks--, data += 64) {
        uint32_t w[64];
        for (int i = 0; i < 16; i++) {
            w[i] = big_endian(data + 4 * i);
        }
        for (int i = 16; i < 64; i++) {
            const uint32_t a = w[i - 15];
            const uint32_t b = w[i - 2];
            w[i] = w[i - 16] + w[i - 7] + (rotate(a, 7) ^ rotate(a, 18) ^ (a >> 3)) +
                   (rotate(b, 17) ^ rotate(b, 19) ^ (b >> 10));
        }
        uint32_t v[8];
        memcpy(v, state, sizeof v);
        for (int i = 0; i < 64; i++) {
            const uint32_t s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
            const uint32_t choice = (v[4] & v[5]) ^ (~v[4] & v[6]);
            const uint32_t t1 = v[7] + s1 + choice + K[i] + w[i];
            const uint32_t s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
            const uint32_t majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            memmove(v + 1, v, 7 * sizeof v[0]);
            v[4] += t1;
            v[0] = t1 + s0 + majority;
        }
        for (int i = 0; i < 8; i++) {
            state[i] += v[i];
        }
    }
}

#if defined(__x86_64__)

/* Gulley et al., Intel SHA Extensions, 2013. Rounds 4i to 4i+3 with message words m[i % 4]. */
__attribute__((target("sha,sse4.1,ssse3"))) static void
compress_native(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i low = _mm_loadu_si128((const __m128i *)(const void *)state);
    __m128i high = _mm_loadu_si128((const __m128i *)(const void *)(state + 4));
    low = _mm_shuffle_epi32(low, 0xb1);
    high = _mm_shuffle_epi32(high, 0x1b);
    __m128i abef = _mm_alignr_epi8(low, high, 8);
    __m128i cdgh = _mm_blend_epi16(high, low, 0xf0);
    for (; blocks > 0u; blocks--, data += 64) {
        const __m128i abef_before = abef;
        const __m128i cdgh_before = cdgh;
        __m128i m[4];
        for (int i = 0; i < 4; i++) {
            const void *at = data + 16 * i;
            m[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)at), swap);
        }
        for (int i = 0; i < 16; i++) {
            const void *constants = K + 4 * i;
            const __m128i words =
                _mm_add_epi32(m[i & 3], _mm_loadu_si128((const __m128i *)constants));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, words);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(words, 0x0e));
            if (i < 12) {
                /* w[t] from w[t-16], w[t-15], w[t-7] and w[t-2], four at once. */
                __m128i next = _mm_sha256msg1_epu32(m[i & 3], m[(i + 1) & 3]);
                next = _mm_add_epi32(next, _mm_alignr_epi8(m[(i + 3) & 3], m[(i + 2) & 3], 4));
                m[i & 3] = _mm_sha256msg2_epu32(next, m[(i + 3) & 3]);
            }
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    abef = _mm_shuffle_epi32(abef, 0x1b);
    cdgh = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)(void *)state, _mm_blend_epi16(abef, cdgh, 0xf0));
    _mm_storeu_si128((__m128i *)(void *)(state + 4), _mm_alignr_epi8(cdgh, abef, 8));
}

static compress_blocks choose(void)
{
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    const int has_sse = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & (1u << 19)) != 0u &&
                        (c & (1u << 9)) != 0u;
    const int has_sha = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & (1u << 29)) != 0u;
    return has_sse && has_sha ? compress_native : compress_portable;
}

#elif defined(__aarch64__) && defined(__linux__)

#if defined(__clang__)
#define WITH_SHA2 __attribute__((target("sha2")))
#else
#define WITH_SHA2 __attribute__((target("+sha2")))
#endif

/* Arm Architecture Reference Manual, SHA256H, SHA256H2, SHA256SU0, SHA256SU1. */
WITH_SHA2 static void compress_native(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    uint32x4_t abcd = vld1q_u32(state);
    uint32x4_t efgh = vld1q_u32(state + 4);
    for (; blocks > 0u; blocks--, data += 64) {
        const uint32x4_t abcd_before = abcd;
        const uint32x4_t efgh_before = efgh;
        uint32x4_t m[4];
        for (int i = 0; i < 4; i++) {
            m[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16 * i)));
        }
        for (int i = 0; i < 16; i++) {
            const uint32x4_t words = vaddq_u32(m[i & 3], vld1q_u32(K + 4 * i));
            const uint32x4_t before = abcd;
            abcd = vsha256hq_u32(abcd, efgh, words);
            efgh = vsha256h2q_u32(efgh, before, words);
            if (i < 12) {
                const uint32x4_t partial = vsha256su0q_u32(m[i & 3], m[(i + 1) & 3]);
                m[i & 3] = vsha256su1q_u32(partial, m[(i + 2) & 3], m[(i + 3) & 3]);
            }
        }
        abcd = vaddq_u32(abcd, abcd_before);
        efgh = vaddq_u32(efgh, efgh_before);
    }
    vst1q_u32(state, abcd);
    vst1q_u32(state + 4, efgh);
}

static compress_blocks choose(void)
{
    const unsigned long sha2 = 1ul << 6; /* HWCAP_SHA2 */
    return (getauxval(AT_HWCAP) & sha2) != 0ul ? compress_native : compress_portable;
}

#else

static compress_blocks choose(void)
{
    return compress_portable;
}

#endif

void sha256_begin(sha256 *hash)
{
    static const uint32_t begin[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(hash->state, begin, sizeof begin);
    hash->length = 0;
}

void sha256_add(sha256 *hash, const void *data, size_t length)
{
    const compress_blocks compress = choose();
    const uint8_t *bytes = data;
    const size_t kept = (size_t)(hash->length % 64u);
    hash->length += length;
    if (kept > 0u) {
        const size_t wanted = 64u - kept;
        const size_t taken = length < wanted ? length : wanted;
        memcpy(hash->block + kept, bytes, taken);
        bytes += taken;
        length -= taken;
        if (taken < wanted) {
            return;
        }
        compress(hash->state, hash->block, 1);
    }
    compress(hash->state, bytes, length / 64u);
    if (length % 64u > 0u) {
        memcpy(hash->block, bytes + length / 64u * 64u, length % 64u);
    }
}

void sha256_end(sha256 *hash, char digits[SHA256_DIGITS + 1])
{
    static const char hex[] = "0123456789abcdef";
    static const uint8_t padding[64] = {0x80};
    const uint64_t bits = hash->length * 8u;
    const size_t kept = (size_t)(hash->length % 64u);
    uint8_t length[8];
    for (int i = 0; i < 8; i++) {
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    }
    sha256_add(hash, padding, kept < 56u ? 56u - kept : 120u - kept);
    sha256_add(hash, length, sizeof length);
    for (int i = 0; i < SHA256_BYTES; i++) {
        const uint32_t byte = hash->state[i / 4] >> (24 - 8 * (i % 4)) & 0xffu;
        digits[2 * i] = hex[byte >> 4];
        digits[2 * i + 1] = hex[byte & 15u];
    }
    digits[SHA256_DIGITS] = '\0';
}
