/* .npy files (numpy/lib/format.py): a magic, a version, and a Python dict of three entries. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "array_file.h"

/* The dict's text; every function moves it on and returns false if it finds something else. */
typedef struct cursor {
    const char *at;
    const char *end;
} cursor;

static void skip_space(cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\n' || *c->at == '\t')) {
        c->at++;
    }
}

static bool sign(cursor *c, char wanted)
{
    skip_space(c);
    if (c->at == c->end || *c->at != wanted) {
        return false;
    }
    c->at++;
    return true;
}

static bool quoted(cursor *c, char *text, size_t capacity)
{
    skip_space(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"')) {
        return false;
    }
    const char quote = *c->at;
    size_t length = 0;
    for (c->at++; c->at < c->end && *c->at != quote && length + 1u < capacity; c->at++) {
        text[length] = *c->at;
        length++;
    }
    text[length] = '\0';
    return sign(c, quote);
}

static bool word(cursor *c, const char *wanted)
{
    const size_t length = strlen(wanted);
    skip_space(c);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, wanted, length) != 0) {
        return false;
    }
    c->at += length;
    return true;
}

static bool number(cursor *c, uint64_t *value)
{
    skip_space(c);
    const char *begin = c->at;
    *value = 0;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
        const uint64_t digit = (uint64_t)(*c->at - '0');
        if (*value > ((uint64_t)INT64_MAX - digit) / 10u) {
            return false;
        }
        *value = *value * 10u + digit;
        c->at++;
    }
    return c->at > begin;
}

static bool shape(cursor *c, array *found)
{
    found->rank = 0;
    if (!sign(c, '(')) {
        return false;
    }
    while (!sign(c, ')')) {
        if (found->rank == POCK_MAX_RANK || !number(c, &found->shape[found->rank])) {
            return false;
        }
        found->rank++;
        if (!sign(c, ',') && found->rank < 2u) {
            return false;
        }
    }
    return true;
}

static bool type_of(const char *descr, element *type)
{
    static const char kinds[] = "fiub";
    static const element_kind meant[] = {ELEMENT_FLOAT, ELEMENT_INT, ELEMENT_UINT, ELEMENT_BOOL};
    const char *kind = descr[0] != '\0' && descr[1] != '\0' ? strchr(kinds, descr[1]) : NULL;
    if (strlen(descr) != 3u || kind == NULL || strchr("<|=", descr[0]) == NULL) {
        return false;
    }
    type->kind = meant[kind - kinds];
    type->bytes = (uint32_t)(descr[2] - '0');
    const bool power = type->bytes == 1u || type->bytes == 2u || type->bytes == 4u ||
                       type->bytes == 8u;
    return power && (type->kind != ELEMENT_FLOAT || type->bytes > 1u) &&
           (type->kind != ELEMENT_BOOL || type->bytes == 1u);
}

static const char *parse_dict(cursor c, array *found, bool *fortran)
{
    char key[32];
    char descr[32];
    unsigned seen = 0;
    if (!sign(&c, '{')) {
        return "its header is unreadable";
    }
    while (!sign(&c, '}')) {
        if (!quoted(&c, key, sizeof key) || !sign(&c, ':')) {
            return "its header is unreadable";
        }
        if (strcmp(key, "descr") == 0) {
            if (!quoted(&c, descr, sizeof descr) || !type_of(descr, &found->type)) {
                return "its elements are no little-endian numbers: convert them with astype";
            }
            seen |= 1u;
        } else if (strcmp(key, "fortran_order") == 0) {
            *fortran = word(&c, "True");
            if (!*fortran && !word(&c, "False")) {
                return "its header is unreadable";
            }
            seen |= 2u;
        } else if (strcmp(key, "shape") == 0 && shape(&c, found)) {
            seen |= 4u;
        } else {
            return "its header is unreadable";
        }
        (void)sign(&c, ',');
    }
    return seen == 7u ? NULL : "its header lacks something";
}

const char *npy_parse(const uint8_t *data, uint64_t size, array *found)
{
    static const uint8_t magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};
    uint32_t length = 0;
    bool fortran = false;
    if (size < 12u || memcmp(data, magic, sizeof magic) != 0) {
        return "it is no .npy file";
    }
    const uint64_t begin = data[6] == 1u ? 10u : 12u;
    memcpy(&length, data + 8, (size_t)begin - 8u); /* little-endian */
    if (data[6] < 1u || data[6] > 3u || length > size - begin) {
        return "its header is cut off, or of an unknown version";
    }
    const cursor text = {(const char *)data + begin, (const char *)data + begin + length};
    const char *wrong = parse_dict(text, found, &fortran);
    if (wrong != NULL) {
        return wrong;
    }
    uint64_t elements = 1;
    uint32_t wide = 0; /* dimensions with more than one element */
    for (uint32_t d = 0; d < found->rank; d++) {
        const uint64_t n = found->shape[d];
        if (n > 0u && elements > (uint64_t)INT64_MAX / n) {
            return "it has more elements than there can be";
        }
        elements *= n;
        wide += n > 1u ? 1u : 0u;
    }
    if (fortran && wide > 1u) {
        return "it is column-major: write numpy.ascontiguousarray of it";
    }
    if (elements > (size - begin - length) / found->type.bytes) {
        return "it is cut off: its header tells of more than there is";
    }
    found->data = data + begin + length;
    return NULL;
}
