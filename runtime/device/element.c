#include "element.h"

#include <math.h>
#include <string.h>

typedef struct named_element {
    const char *stored;
    const char *name;
    element type;
} named_element;

/* The first ten in the order of pk_dtype. */
static const named_element ELEMENTS[] = {
    {"F64", "f64", {ELEMENT_FLOAT, 8}}, {"F32", "f32", {ELEMENT_FLOAT, 4}},
    {"F16", "f16", {ELEMENT_FLOAT, 2}}, {"BF16", "bf16", {ELEMENT_BFLOAT, 2}},
    {"I64", "i64", {ELEMENT_INT, 8}},   {"I32", "i32", {ELEMENT_INT, 4}},
    {"I16", "i16", {ELEMENT_INT, 2}},   {"I8", "i8", {ELEMENT_INT, 1}},
    {"U8", "u8", {ELEMENT_UINT, 1}},    {"BOOL", "b1", {ELEMENT_BOOL, 1}},
    {"U16", "u16", {ELEMENT_UINT, 2}},  {"U32", "u32", {ELEMENT_UINT, 4}},
    {"U64", "u64", {ELEMENT_UINT, 8}},
};
enum { ELEMENT_COUNT = sizeof ELEMENTS / sizeof ELEMENTS[0] };

element element_of(pk_dtype dtype)
{
    return ELEMENTS[dtype].type;
}

bool element_same(element a, element b)
{
    return a.kind == b.kind && a.bytes == b.bytes;
}

bool element_parse(json name, element *found)
{
    for (size_t i = 0; i < ELEMENT_COUNT; i++) {
        if (json_equals(name, ELEMENTS[i].stored)) {
            *found = ELEMENTS[i].type;
            return true;
        }
    }
    return false;
}

const char *element_stored_name(pk_dtype dtype)
{
    return ELEMENTS[dtype].stored;
}

const char *element_name(element type)
{
    for (size_t i = 0; i < ELEMENT_COUNT; i++) {
        if (element_same(type, ELEMENTS[i].type)) {
            return ELEMENTS[i].name;
        }
    }
    return "?";
}

static bool is_float(element type)
{
    return type.kind == ELEMENT_FLOAT || type.kind == ELEMENT_BFLOAT;
}

bool element_convertible(element from, element to)
{
    if (is_float(to)) {
        return is_float(from);
    }
    return (to.kind == ELEMENT_BOOL) == (from.kind == ELEMENT_BOOL) && !is_float(from);
}

/* IEEE 754 binary16. */
static double half_number(uint16_t bits)
{
    const int exponent = bits >> 10 & 31;
    const double fraction = bits & 1023;
    double size = 0.0;
    if (exponent == 0) {
        size = ldexp(fraction, -24);
    } else if (exponent == 31) {
        size = fraction > 0.0 ? (double)NAN : (double)INFINITY;
    } else {
        size = ldexp(fraction + 1024.0, exponent - 25);
    }
    return (bits & 0x8000u) != 0u ? -size : size;
}

/* Rounded to nearest even, as NumPy does; from the double itself, so that it is rounded once. */
static uint16_t half_bits(double number)
{
    const uint16_t sign = signbit(number) ? 0x8000u : 0u;
    const double size = fabs(number);
    if (isnan(number)) {
        return (uint16_t)(sign | 0x7e00u);
    }
    if (size >= 65520.0) {
        return (uint16_t)(sign | 0x7c00u);
    }
    if (size < 6.103515625e-05) {
        return (uint16_t)(sign | (uint16_t)nearbyint(ldexp(size, 24)));
    }
    int exponent = 0;
    const double mantissa = frexp(size, &exponent); /* .5 to 1 */
    const uint32_t rounded = (uint32_t)nearbyint(ldexp(mantissa, 11)); /* 1024 to 2048 */
    return (uint16_t)(sign | (((uint32_t)(exponent + 14) << 10) + (rounded - 1024u)));
}

static float bfloat_number(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float number = 0.0f;
    memcpy(&number, &wide, sizeof number);
    return number;
}

/* Rounded to nearest even; a NaN stays one. */
static uint16_t bfloat_bits(float number)
{
    uint32_t bits = 0;
    memcpy(&bits, &number, sizeof bits);
    if (isnan(number)) {
        return 0x7fc0u;
    }
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

double element_number(element type, const uint8_t *at)
{
    uint16_t half = 0;
    float single = 0.0f;
    double number = 0.0;
    if (!is_float(type)) {
        return (double)element_integer(type, at);
    }
    if (type.kind == ELEMENT_BFLOAT) {
        memcpy(&half, at, sizeof half);
        return (double)bfloat_number(half);
    }
    switch (type.bytes) {
    case 2:
        memcpy(&half, at, sizeof half);
        return half_number(half);
    case 4:
        memcpy(&single, at, sizeof single);
        return (double)single;
    default:
        memcpy(&number, at, sizeof number);
        return number;
    }
}

/* What does not fit is INT64_MAX, which is in no range. */
int64_t element_integer(element type, const uint8_t *at)
{
    uint64_t bits = 0;
    memcpy(&bits, at, type.bytes); /* little-endian */
    if (type.kind == ELEMENT_BOOL) {
        return bits != 0u;
    }
    if (type.kind == ELEMENT_UINT) {
        return bits > (uint64_t)INT64_MAX ? INT64_MAX : (int64_t)bits;
    }
    const uint64_t sign = UINT64_C(1) << (8u * type.bytes - 1u);
    return (int64_t)((bits ^ sign) - sign);
}

static void store_float(element type, double number, uint8_t *to)
{
    if (type.kind == ELEMENT_BFLOAT) {
        const uint16_t bits = bfloat_bits((float)number);
        memcpy(to, &bits, sizeof bits);
    } else if (type.bytes == 2u) {
        const uint16_t bits = half_bits(number);
        memcpy(to, &bits, sizeof bits);
    } else if (type.bytes == 4u) {
        const float single = (float)number;
        memcpy(to, &single, sizeof single);
    } else {
        memcpy(to, &number, sizeof number);
    }
}

void element_convert(element from_type, const uint8_t *from, element to_type, uint8_t *to,
                     uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (is_float(to_type)) {
            store_float(to_type, element_number(from_type, from), to);
        } else {
            const int64_t number = element_integer(from_type, from);
            memcpy(to, &number, to_type.bytes); /* little-endian */
        }
        from += from_type.bytes;
        to += to_type.bytes;
    }
}
