/* Writing safetensors files: equal tensors give equal bytes, the same as Python's. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tensor_file.h"

static void add_bytes(text_buffer *b, const char *bytes, size_t count)
{
    if (b->failed) {
        return;
    }
    if (b->capacity - b->length < count) {
        const size_t capacity = (b->capacity + count) * 2u + 256u;
        char *grown = realloc(b->text, capacity);
        if (grown == NULL) {
            b->failed = true;
            return;
        }
        b->text = grown;
        b->capacity = capacity;
    }
    memcpy(b->text + b->length, bytes, count);
    b->length += count;
}

void text_add(text_buffer *b, const char *text)
{
    add_bytes(b, text, strlen(text));
}

void text_add_number(text_buffer *b, uint64_t number)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, number);
    text_add(b, text);
}

/* The code point at `at`, which moves behind it; a byte that is no UTF-8 stands for itself. */
static uint32_t code_point(const unsigned char **at)
{
    const unsigned char *c = *at;
    const uint32_t first = *c;
    const int more = first >= 0xf0u ? 3 : first >= 0xe0u ? 2 : first >= 0xc0u ? 1 : 0;
    uint32_t code = more == 3 ? first & 7u : more == 2 ? first & 15u : first & 31u;
    for (int i = 1; i <= more; i++) {
        if ((c[i] & 0xc0u) != 0x80u) {
            *at += 1;
            return first;
        }
        code = code << 6 | (c[i] & 63u);
    }
    *at += more + 1;
    return more == 0 ? first : code;
}

static void add_unit(text_buffer *b, uint32_t unit)
{
    char text[12];
    (void)snprintf(text, sizeof text, "\\u%04" PRIx32, unit);
    text_add(b, text);
}

void text_add_string(text_buffer *b, const char *text)
{
    static const char from[] = "\"\\\b\f\n\r\t";
    static const char to[] = "\"\\bfnrt";
    const unsigned char *at = (const unsigned char *)text;
    text_add(b, "\"");
    while (*at != 0u) {
        const uint32_t code = code_point(&at);
        const char *special = code < 0x80u ? strchr(from, (int)code) : NULL;
        if (special != NULL) {
            const char escape[3] = {'\\', to[special - from], '\0'};
            text_add(b, escape);
        } else if (code >= 0x20u && code < 0x7fu) {
            const char plain[2] = {(char)code, '\0'};
            text_add(b, plain);
        } else if (code < 0x10000u) {
            add_unit(b, code);
        } else {
            add_unit(b, 0xd800u + ((code - 0x10000u) >> 10));
            add_unit(b, 0xdc00u + ((code - 0x10000u) & 0x3ffu));
        }
    }
    text_add(b, "\"");
}

static int by_width(const void *a, const void *b)
{
    const new_tensor *s = a;
    const new_tensor *t = b;
    const uint32_t first = element_of(s->dtype).bytes;
    const uint32_t second = element_of(t->dtype).bytes;
    if (first != second) {
        return first > second ? -1 : 1;
    }
    return strcmp(s->name, t->name);
}

void tensor_file_sort(new_tensor *tensors, size_t count)
{
    if (count > 0u) {
        qsort(tensors, count, sizeof tensors[0], by_width);
    }
}

static void add_tensor(text_buffer *b, const new_tensor *t, uint64_t begin)
{
    text_add(b, ",");
    text_add_string(b, t->name);
    text_add(b, ":{\"dtype\":\"");
    text_add(b, element_stored_name(t->dtype));
    text_add(b, "\",\"shape\":[");
    for (uint32_t d = 0; d < t->rank; d++) {
        text_add(b, d > 0u ? "," : "");
        text_add_number(b, t->shape[d]);
    }
    text_add(b, "],\"data_offsets\":[");
    text_add_number(b, begin);
    text_add(b, ",");
    text_add_number(b, begin + t->nbytes);
    text_add(b, "]}");
}

/* The header with its length before it; the hash's 64 digits are zeros at `*digest`. The metadata
 * is the first entry: the hash's place is found before any tensor's name. */
static void make_header(text_buffer *b, const new_tensor *tensors, size_t count,
                        const metadata_item *metadata, size_t metadata_count, size_t align,
                        size_t *digest)
{
    static const char zeros[] = "0000000000000000000000000000000000000000000000000000000000000000";
    text_add(b, "12345678{\"__metadata__\":{\"pock.sha256\":\"");
    *digest = b->length;
    text_add(b, zeros);
    text_add(b, "\"");
    for (size_t i = 0; i < metadata_count; i++) {
        text_add(b, ",");
        text_add_string(b, metadata[i].key);
        text_add(b, ":");
        text_add_string(b, metadata[i].value);
    }
    text_add(b, "}");
    uint64_t begin = 0;
    for (size_t i = 0; i < count; i++) {
        add_tensor(b, &tensors[i], begin);
        begin += tensors[i].nbytes;
    }
    text_add(b, "}");
    while (!b->failed && b->length % align != 0u) {
        text_add(b, " ");
    }
    if (!b->failed) {
        const uint64_t length = b->length - 8u;
        memcpy(b->text, &length, sizeof length); /* little-endian */
    }
}

static pk_status write_tensor(replacement *target, const new_tensor *t, sha256 *hash,
                              uint8_t buffer[POCK_BUFFER_BYTES])
{
    const uint32_t bytes = element_of(t->dtype).bytes;
    const uint64_t elements = t->nbytes / bytes;
    for (uint64_t first = 0; first < elements;) {
        const uint64_t left = elements - first;
        const uint64_t most = POCK_BUFFER_BYTES / bytes;
        const uint64_t count = left < most ? left : most;
        const pk_status status = t->read(t->source, t->number, first, count, buffer);
        if (status != PK_OK) {
            return status;
        }
        sha256_add(hash, buffer, (size_t)(count * bytes));
        if (!write_all(target->file, buffer, count * bytes)) {
            return write_failed(target->error, target->path);
        }
        first += count;
    }
    return PK_OK;
}

pk_status tensor_file_write(replacement *target, const new_tensor *tensors, size_t count,
                            const metadata_item *metadata, size_t metadata_count, size_t align,
                            uint8_t buffer[POCK_BUFFER_BYTES])
{
    text_buffer header = {NULL, 0, 0, false};
    size_t digest = 0;
    sha256 hash;
    char digits[SHA256_DIGITS + 1];
    make_header(&header, tensors, count, metadata, metadata_count, align, &digest);
    if (header.failed) {
        free(header.text);
        return pock_fail(target->error, PK_E_MEMORY, "not-enough-memory", "close other programs",
                         "there is no memory for the header of %s", target->path);
    }
    sha256_begin(&hash);
    sha256_add(&hash, header.text, header.length);
    pk_status status = write_all(target->file, header.text, header.length)
                           ? PK_OK
                           : write_failed(target->error, target->path);
    free(header.text);
    for (size_t i = 0; i < count && status == PK_OK; i++) {
        status = write_tensor(target, &tensors[i], &hash, buffer);
    }
    if (status != PK_OK) {
        return status;
    }
    sha256_end(&hash, digits);
    const ssize_t put = pwrite(target->file, digits, SHA256_DIGITS, (off_t)digest);
    return put == SHA256_DIGITS ? PK_OK : write_failed(target->error, target->path);
}
