/* DEFLATE (Deutsch, RFC 1951), straight to where the data is wanted. Codes are canonical: of each
 * length it is enough to know how many there are (Deutsch, §3.2.2). */
#include <string.h>

#include "array_file.h"

enum { MAX_BITS = 15, MAX_LITERALS = 288, MAX_DISTANCES = 30, FAST_BITS = 9 };

typedef struct reader {
    const uint8_t *at;
    const uint8_t *end;
    uint64_t bits;
    uint32_t count; /* of valid bits */
    uint32_t missing; /* bits that were asked for behind the end */
} reader;

typedef struct code {
    uint16_t counts[MAX_BITS + 1];
    uint16_t symbols[MAX_LITERALS];
    uint16_t fast[1 << FAST_BITS]; /* symbol << 4 | length; 0: longer than FAST_BITS */
} code;

static void refill(reader *r)
{
    while (r->count <= 56u) {
        if (r->at < r->end) {
            r->bits |= (uint64_t)*r->at << r->count;
            r->at++;
        } else {
            r->missing += 8u;
        }
        r->count += 8u;
    }
}

static uint32_t take(reader *r, uint32_t count)
{
    refill(r);
    const uint32_t value = (uint32_t)(r->bits & ((UINT64_C(1) << count) - 1u));
    r->bits >>= count;
    r->count -= count;
    return value;
}

/* Whether bits behind the end were used. */
static bool ran_out(const reader *r)
{
    return r->missing > r->count;
}

/* False if the lengths are those of no code. */
static bool make_code(code *c, const uint8_t *lengths, uint32_t count)
{
    uint16_t next[MAX_BITS + 1] = {0};
    uint32_t first[MAX_BITS + 1] = {0};
    memset(c, 0, sizeof *c);
    for (uint32_t i = 0; i < count; i++) {
        c->counts[lengths[i]]++;
    }
    c->counts[0] = 0;
    int32_t left = 1;
    for (uint32_t l = 1; l <= MAX_BITS; l++) {
        left = left * 2 - (int32_t)c->counts[l];
        if (left < 0) {
            return false;
        }
        first[l] = (first[l - 1u] + c->counts[l - 1u]) << 1;
        next[l] = (uint16_t)(next[l - 1u] + c->counts[l - 1u]);
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t l = lengths[i];
        if (l == 0u) {
            continue;
        }
        c->symbols[next[l]++] = (uint16_t)i;
        const uint32_t value = first[l]++;
        uint32_t reversed = 0;
        for (uint32_t b = 0; b < l; b++) {
            reversed |= (value >> b & 1u) << (l - 1u - b);
        }
        for (uint32_t f = reversed; l <= FAST_BITS && f < (1u << FAST_BITS); f += 1u << l) {
            c->fast[f] = (uint16_t)(i << 4 | l);
        }
    }
    return true;
}

/* MAX_LITERALS if there is no such code. */
static uint32_t decode(reader *r, const code *c)
{
    refill(r);
    const uint32_t fast = c->fast[r->bits & ((1u << FAST_BITS) - 1u)];
    if (fast != 0u) {
        r->bits >>= fast & 15u;
        r->count -= fast & 15u;
        return fast >> 4;
    }
    uint32_t value = 0;
    uint32_t first = 0;
    uint32_t index = 0;
    for (uint32_t l = 1; l <= MAX_BITS; l++) {
        value |= (uint32_t)(r->bits >> (l - 1u) & 1u);
        const uint32_t count = c->counts[l];
        if (value < first + count) {
            r->bits >>= l;
            r->count -= l;
            return c->symbols[index + (value - first)];
        }
        index += count;
        first = (first + count) << 1;
        value <<= 1;
    }
    return MAX_LITERALS;
}

static const char *stored_block(reader *r, uint8_t *out, uint64_t size, uint64_t *done)
{
    (void)take(r, r->count & 7u);
    const uint32_t length = take(r, 16);
    const uint32_t inverse = take(r, 16);
    if (ran_out(r) || (length ^ inverse) != 0xffffu || length > size - *done) {
        return "a stored block has a wrong length";
    }
    for (uint32_t i = 0; i < length; i++) {
        out[*done + i] = (uint8_t)take(r, 8);
    }
    *done += length;
    return ran_out(r) ? "it ends too early" : NULL;
}

static const char *read_codes(reader *r, code *literals, code *distances)
{
    static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t lengths[MAX_LITERALS + 32] = {0};
    const uint32_t literal_count = take(r, 5) + 257u;
    const uint32_t distance_count = take(r, 5) + 1u;
    const uint32_t length_count = take(r, 4) + 4u;
    for (uint32_t i = 0; i < length_count; i++) {
        lengths[order[i]] = (uint8_t)take(r, 3);
    }
    if (literal_count > 286u || distance_count > MAX_DISTANCES || !make_code(literals, lengths, 19)) {
        return "a block has a bad table";
    }
    memset(lengths, 0, sizeof lengths);
    for (uint32_t i = 0; i < literal_count + distance_count;) {
        const uint32_t symbol = decode(r, literals);
        uint32_t repeat = 1;
        uint8_t length = (uint8_t)symbol;
        if (symbol == 16u) {
            length = i > 0u ? lengths[i - 1u] : 255u;
            repeat = 3u + take(r, 2);
        } else if (symbol == 17u) {
            length = 0;
            repeat = 3u + take(r, 3);
        } else if (symbol == 18u) {
            length = 0;
            repeat = 11u + take(r, 7);
        }
        if (symbol > 18u || length > MAX_BITS || repeat > literal_count + distance_count - i ||
            ran_out(r)) {
            return "a block has a bad table";
        }
        memset(lengths + i, length, repeat);
        i += repeat;
    }
    if (lengths[256] == 0u || !make_code(literals, lengths, literal_count) ||
        !make_code(distances, lengths + literal_count, distance_count)) {
        return "a block has a bad table";
    }
    return NULL;
}

static void fixed_codes(code *literals, code *distances)
{
    uint8_t lengths[MAX_LITERALS];
    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 112);
    memset(lengths + 256, 7, 24);
    memset(lengths + 280, 8, 8);
    (void)make_code(literals, lengths, MAX_LITERALS);
    memset(lengths, 5, MAX_DISTANCES);
    (void)make_code(distances, lengths, MAX_DISTANCES);
}

/* Lengths 3 to 258 and distances 1 to 32768: a base and some more bits. */
static const uint16_t LENGTH_BASE[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                         31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t LENGTH_MORE[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                        2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t DISTANCE_BASE[30] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,
                                           33,  49,  65,  97,  129, 193,  257,  385,  513,  769,
                                           1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
static const uint8_t DISTANCE_MORE[30] = {0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
                                          6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};

static const char *copy_match(reader *r, uint32_t symbol, const code *distances, uint8_t *out,
                              uint64_t size, uint64_t *done)
{
    if (symbol > 285u) {
        return "it has a code that there is not";
    }
    const uint32_t length = LENGTH_BASE[symbol - 257u] + take(r, LENGTH_MORE[symbol - 257u]);
    const uint32_t which = decode(r, distances);
    if (which >= MAX_DISTANCES) {
        return "it has a code that there is not";
    }
    const uint32_t distance = DISTANCE_BASE[which] + take(r, DISTANCE_MORE[which]);
    if (distance > *done || length > size - *done) {
        return "it refers to what is not there";
    }
    for (uint32_t i = 0; i < length; i++) {
        out[*done + i] = out[*done + i - distance];
    }
    *done += length;
    return NULL;
}

static const char *coded_block(reader *r, const code *literals, const code *distances,
                               uint8_t *out, uint64_t size, uint64_t *done)
{
    for (;;) {
        const uint32_t symbol = decode(r, literals);
        if (ran_out(r)) {
            return "it ends too early";
        }
        if (symbol == 256u) {
            return NULL;
        }
        if (symbol > 256u) {
            const char *wrong = copy_match(r, symbol, distances, out, size, done);
            if (wrong != NULL) {
                return wrong;
            }
        } else if (*done < size) {
            out[*done] = (uint8_t)symbol;
            *done += 1u;
        } else {
            return "it is longer than it says";
        }
    }
}

const char *inflate_all(const uint8_t *data, uint64_t length, uint8_t *out, uint64_t size)
{
    reader r = {data, data + length, 0, 0, 0};
    code literals;
    code distances;
    uint64_t done = 0;
    bool last = false;
    while (!last) {
        const char *wrong = NULL;
        last = take(&r, 1) == 1u;
        const uint32_t kind = take(&r, 2);
        if (ran_out(&r) || kind == 3u) {
            return kind == 3u ? "it has a block of an unknown kind" : "it ends too early";
        }
        if (kind == 0u) {
            wrong = stored_block(&r, out, size, &done);
        } else {
            if (kind == 1u) {
                fixed_codes(&literals, &distances);
            } else {
                wrong = read_codes(&r, &literals, &distances);
            }
            if (wrong == NULL) {
                wrong = coded_block(&r, &literals, &distances, out, size, &done);
            }
        }
        if (wrong != NULL) {
            return wrong;
        }
    }
    return done == size ? NULL : "it is shorter than it says";
}

uint32_t crc32_of(uint32_t crc, const uint8_t *data, uint64_t length)
{
    /* Four bits at a time: a table of 64 bytes. */
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    crc = ~crc;
    for (uint64_t i = 0; i < length; i++) {
        crc ^= data[i];
        crc = crc >> 4 ^ table[crc & 15u];
        crc = crc >> 4 ^ table[crc & 15u];
    }
    return ~crc;
}
