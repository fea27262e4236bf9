#define _GNU_SOURCE
#include "tensor_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_HEADER_BYTES UINT64_C(100000000)

pk_status tensor_file_damaged(const char *path, const char *why, pock_error *error)
{
    char fix[POCK_PATH_BYTES + 64];
    struct stat info;
    (void)snprintf(fix, sizeof fix, "use the one before it: %s.previous", path);
    const bool previous = stat(fix + strlen("use the one before it: "), &info) == 0;
    return pock_fail(error, PK_E_DAMAGED, "damaged-tensors",
                     previous ? fix : "copy the file again",
                     "%s is no valid safetensors file: %s", path, why);
}

static pk_status damaged(const tensor_file *f, const char *why)
{
    return tensor_file_damaged(f->path, why, f->error);
}

static bool parse_shape(json shape, stored_tensor *t, uint64_t *elements)
{
    json key = {NULL, NULL};
    json value = {NULL, NULL};
    json_walk walk = json_members(shape);
    *elements = 1;
    t->rank = 0;
    while (json_next(&walk, &key, &value)) {
        uint64_t size = 0;
        if (t->rank == POCK_MAX_RANK || !json_u64(value, &size) || size > INT64_MAX ||
            (size > 0u && *elements > INT64_MAX / size)) {
            return false;
        }
        *elements *= size;
        t->shape[t->rank] = size;
        t->rank++;
    }
    return json_is_array(shape);
}

static bool parse_offsets(json offsets, uint64_t *begin, uint64_t *end)
{
    json key = {NULL, NULL};
    json value = {NULL, NULL};
    json_walk walk = json_members(offsets);
    return json_is_array(offsets) && json_next(&walk, &key, &value) && json_u64(value, begin) &&
           json_next(&walk, &key, &value) && json_u64(value, end) &&
           !json_next(&walk, &key, &value);
}

static bool parse_tensor(const tensor_file *f, json name, json entry, stored_tensor *t)
{
    json dtype = {NULL, NULL};
    json shape = {NULL, NULL};
    json offsets = {NULL, NULL};
    uint64_t elements = 0;
    uint64_t begin = 0;
    uint64_t end = 0;
    const uint64_t room = f->view.size - f->data_begin;
    t->name = name;
    if (!json_find(entry, "dtype", &dtype) || !element_parse(dtype, &t->type) ||
        !json_find(entry, "shape", &shape) || !parse_shape(shape, t, &elements) ||
        !json_find(entry, "data_offsets", &offsets) || !parse_offsets(offsets, &begin, &end)) {
        return false;
    }
    if (begin > end || end > room || elements > room / t->type.bytes ||
        end - begin != elements * t->type.bytes) {
        return false;
    }
    t->begin = f->data_begin + begin;
    t->end = f->data_begin + end;
    return true;
}

static int by_place(const void *a, const void *b)
{
    const stored_tensor *s = a;
    const stored_tensor *t = b;
    if (s->begin != t->begin) {
        return s->begin < t->begin ? -1 : 1;
    }
    return (s->end > t->end) - (s->end < t->end);
}

/* One after the other from the header to the end of the file. */
static bool without_gaps(tensor_file *f)
{
    uint64_t end = f->data_begin;
    if (f->count > 0u) {
        qsort(f->tensors, f->count, sizeof f->tensors[0], by_place);
    }
    for (size_t i = 0; i < f->count; i++) {
        if (f->tensors[i].begin != end) {
            return false;
        }
        end = f->tensors[i].end;
    }
    return end == f->view.size;
}

static pk_status parse_members(tensor_file *f, json root)
{
    json key = {NULL, NULL};
    json value = {NULL, NULL};
    size_t count = 0;
    json_walk walk = json_members(root);
    while (json_next(&walk, &key, &value)) {
        count++;
    }
    f->tensors = calloc(count + 1u, sizeof f->tensors[0]);
    if (f->tensors == NULL) {
        return pock_fail(f->error, PK_E_MEMORY, "not-enough-memory", "close other programs",
                         "there is no memory for the header of %s", f->path);
    }
    walk = json_members(root);
    while (json_next(&walk, &key, &value)) {
        if (json_equals(key, "__metadata__")) {
            if (!json_is_object(value)) {
                return damaged(f, "its metadata is no object");
            }
            f->metadata = value;
        } else if (parse_tensor(f, key, value, &f->tensors[f->count])) {
            f->count++;
        } else {
            return damaged(f, "its header is unreadable, or tells of more than there is");
        }
    }
    return without_gaps(f) ? PK_OK
                           : damaged(f, "its tensors overlap, or there are gaps between them");
}

pk_status tensor_file_parse(tensor_file *f)
{
    uint64_t length = 0;
    json root = {NULL, NULL};
    char why[96];
    if (f->view.size >= 8u) {
        memcpy(&length, f->view.data, 8); /* little-endian */
    }
    if (f->view.size < 8u || length > f->view.size - 8u || length > MAX_HEADER_BYTES) {
        (void)snprintf(why, sizeof why, "its header cannot be %" PRIu64 " of %" PRIu64 " bytes",
                       length, f->view.size);
        return damaged(f, why);
    }
    f->data_begin = 8u + length;
    if (!json_check((const char *)f->view.data + 8, (size_t)length, &root) ||
        !json_is_object(root)) {
        return damaged(f, "its header is unreadable");
    }
    return parse_members(f, root);
}

pk_status tensor_file_open(tensor_file *f, const char *path, pock_error *error)
{
    memset(f, 0, sizeof *f);
    f->path = path;
    f->error = error;
    f->file = open(path, O_RDONLY | O_CLOEXEC);
    if (f->file < 0 || !view_open(&f->view, path)) {
        const int reason = errno;
        tensor_file_close(f);
        return reason == ENOENT ? pock_fail(error, PK_E_NO_CHECKPOINT, "no-checkpoint",
                                            "check the path", "there is no checkpoint %s", path)
                                : tensor_file_damaged(path, strerror(reason), error);
    }
    const pk_status status = tensor_file_parse(f);
    if (status != PK_OK) {
        tensor_file_close(f);
    }
    return status;
}

void tensor_file_close(tensor_file *f)
{
    view_close(&f->view);
    free(f->tensors);
    f->tensors = NULL;
    f->count = 0;
    if (f->file >= 0) {
        (void)close(f->file);
        f->file = -1;
    }
}

const stored_tensor *tensor_file_find(const tensor_file *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++) {
        if (json_equals(f->tensors[i].name, name)) {
            return &f->tensors[i];
        }
    }
    return NULL;
}

int64_t tensor_file_number(const tensor_file *f, const char *key, int64_t otherwise)
{
    json value = {NULL, NULL};
    int64_t number = 0;
    if (!json_find(f->metadata, key, &value) || value.end - value.begin < 3) {
        return otherwise;
    }
    const json inner = {value.begin + 1, value.end - 1};
    return json_i64(inner, &number) ? number : otherwise;
}

static const char *find_bytes(const char *text, size_t length, const char *wanted, size_t size)
{
    for (size_t i = 0; i + size <= length; i++) {
        if (memcmp(text + i, wanted, size) == 0) {
            return text + i;
        }
    }
    return NULL;
}

pk_status tensor_file_check_digest(const tensor_file *f, uint8_t buffer[POCK_BUFFER_BYTES])
{
    json value = {NULL, NULL};
    char expected[SHA256_DIGITS + 1];
    char found[SHA256_DIGITS + 1];
    char zeros[SHA256_DIGITS];
    if (!json_find(f->metadata, "pock.sha256", &value)) {
        return PK_OK;
    }
    const char *head = (const char *)f->view.data;
    const size_t length = (size_t)f->data_begin;
    const char *place = NULL;
    if (json_string(value, expected, sizeof expected) && strlen(expected) == SHA256_DIGITS) {
        place = find_bytes(head, length, expected, SHA256_DIGITS);
    }
    if (place == NULL) {
        return damaged(f, "its own hash is unreadable");
    }
    sha256 hash;
    memset(zeros, '0', sizeof zeros);
    sha256_begin(&hash);
    sha256_add(&hash, head, (size_t)(place - head));
    sha256_add(&hash, zeros, sizeof zeros);
    sha256_add(&hash, place + SHA256_DIGITS, length - (size_t)(place - head) - SHA256_DIGITS);
    if (!hash_rest(f->file, f->data_begin, &hash, buffer)) {
        return damaged(f, strerror(errno));
    }
    sha256_end(&hash, found);
    return strcmp(found, expected) == 0 ? PK_OK
                                        : damaged(f, "its content does not match its own hash");
}
