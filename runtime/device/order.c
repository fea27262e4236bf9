#include "order.h"

#include "pock.h"

static const uint64_t GAMMA = UINT64_C(0x9e3779b97f4a7c15);

/* Steele et al., Fast Splittable Pseudorandom Number Generators, OOPSLA 2014: the finaliser. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void order_begin(row_order *order, uint64_t rows, int64_t seed, uint64_t epoch)
{
    const uint64_t base = mix(mix((uint64_t)seed + GAMMA) + (epoch + 1u) * GAMMA);
    order->rows = rows;
    order->half_bits = 1;
    while (order->half_bits < 32u && (UINT64_C(1) << (2u * order->half_bits)) < rows) {
        order->half_bits++;
    }
    for (uint32_t i = 0; i < ORDER_ROUNDS; i++) {
        order->keys[i] = mix(base + (i + 1u) * GAMMA);
    }
}

uint64_t order_at(const row_order *order, uint64_t position)
{
    const uint64_t mask = (UINT64_C(1) << order->half_bits) - 1u;
    do {
        uint64_t left = position >> order->half_bits;
        uint64_t right = position & mask;
        for (uint32_t i = 0; i < ORDER_ROUNDS; i++) {
            const uint64_t next = left ^ (mix(right + order->keys[i]) & mask);
            left = right;
            right = next;
        }
        position = left << order->half_bits | right;
    } while (position >= order->rows);
    return position;
}

uint64_t pock_row_at(uint64_t rows, int64_t seed, uint64_t epoch, uint64_t position)
{
    row_order order;
    if (position >= rows) {
        return UINT64_MAX;
    }
    order_begin(&order, rows, seed, epoch);
    return order_at(&order, position);
}
