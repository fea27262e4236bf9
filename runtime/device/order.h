/* order.h: the order of rows in an epoch, without a table of it.
 *
 * A permutation of the rows by a Feistel network (Luby & Rackoff, How to Construct Pseudorandom
 * Permutations from Pseudorandom Functions, SIAM J. Comput. 1988) over the least power of four that
 * is not below their number; a position whose image is no row is taken through it again until it is
 * one (Black & Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002). data.py has the same.
 */
#ifndef POCK_ORDER_H
#define POCK_ORDER_H

#include <stdint.h>

enum { ORDER_ROUNDS = 6 };

typedef struct row_order {
    uint64_t rows;
    uint64_t keys[ORDER_ROUNDS];
    uint32_t half_bits;
} row_order;

/* `epoch` counts from 0. */
void order_begin(row_order *order, uint64_t rows, int64_t seed, uint64_t epoch);
/* Which row comes at a position, from 0. */
uint64_t order_at(const row_order *order, uint64_t position);

#endif
