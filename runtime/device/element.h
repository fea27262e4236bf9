/* element.h: element types as files have them, and how they become those of a tensor. */
#ifndef POCK_ELEMENT_H
#define POCK_ELEMENT_H

#include <stdbool.h>

#include "json.h"
#include "pock_core.h"

typedef enum element_kind {
    ELEMENT_FLOAT,
    ELEMENT_BFLOAT,
    ELEMENT_INT,
    ELEMENT_UINT,
    ELEMENT_BOOL
} element_kind;

typedef struct element {
    element_kind kind;
    uint32_t bytes;
} element;

element element_of(pk_dtype dtype);
bool element_same(element a, element b);
/* As safetensors calls it; false for a type that is not known. */
bool element_parse(json name, element *found);
const char *element_stored_name(pk_dtype dtype);
/* As messages call it, as `f32`. */
const char *element_name(element type);
/* Whether values keep their meaning: floats to floats, integers to integers. */
bool element_convertible(element from, element to);
/* Convert `count` elements; `from` need not be aligned. Integers must be in range. */
void element_convert(element from_type, const uint8_t *from, element to_type, uint8_t *to,
                     uint64_t count);
/* An integer or truth value. */
int64_t element_integer(element type, const uint8_t *at);
double element_number(element type, const uint8_t *at);

#endif
