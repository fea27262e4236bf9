/* sha256.h: SHA-256 (FIPS 180-4), with the processor's instructions for it where it has them. */
#ifndef POCK_SHA256_H
#define POCK_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = 32, SHA256_DIGITS = 64 };

typedef struct sha256 {
    uint32_t state[8];
    uint64_t length;
    uint8_t block[64];
} sha256;

void sha256_begin(sha256 *hash);
void sha256_add(sha256 *hash, const void *data, size_t length);
/* 64 hexadecimal digits and a 0. */
void sha256_end(sha256 *hash, char digits[SHA256_DIGITS + 1]);

#endif
