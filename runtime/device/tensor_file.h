/* tensor_file.h: safetensors files, read and written (safetensors.py).
 *
 * Every number of a file is checked before it is used: a damaged file is refused, not believed.
 */
#ifndef POCK_TENSOR_FILE_H
#define POCK_TENSOR_FILE_H

#include "element.h"
#include "file.h"

enum { POCK_MAX_RANK = 16, POCK_NAME_BYTES = 1024 };

/* A tensor in a file; `begin` and `end` count from the start of the file. */
typedef struct stored_tensor {
    json name;
    element type;
    uint32_t rank;
    uint64_t shape[POCK_MAX_RANK];
    uint64_t begin;
    uint64_t end;
} stored_tensor;

typedef struct tensor_file {
    file_view view; /* only the header of it is touched */
    int file;
    json metadata; /* an object */
    stored_tensor *tensors;
    size_t count;
    uint64_t data_begin;
    const char *path;
    pock_error *error;
} tensor_file;

/* `path` must outlive the file. On failure nothing is to be closed. */
pk_status tensor_file_open(tensor_file *f, const char *path, pock_error *error);
void tensor_file_close(tensor_file *f);
const stored_tensor *tensor_file_find(const tensor_file *f, const char *name);
/* A number that the metadata has as text; `otherwise` if it has none. */
int64_t tensor_file_number(const tensor_file *f, const char *key, int64_t otherwise);
/* Check the content of a file that carries its own hash; others are taken as they are. */
pk_status tensor_file_check_digest(const tensor_file *f, uint8_t buffer[POCK_BUFFER_BYTES]);
/* PK_E_DAMAGED with the reason, and with the file before it if that is there. */
pk_status tensor_file_damaged(const char *path, const char *why, pock_error *error);
/* The header of a file that is in memory; what follows it need not be. */
pk_status tensor_file_parse(tensor_file *f);

/* A tensor to write. `read` puts elements `first` .. `first + count - 1` in the order in which they
 * are kept into `target`. */
typedef struct new_tensor {
    const char *name;
    pk_dtype dtype;
    uint32_t rank;
    uint64_t shape[POCK_MAX_RANK];
    uint64_t nbytes;
    pk_status (*read)(void *source, uint64_t number, uint64_t first, uint64_t count, void *target);
    void *source;
    uint64_t number;
} new_tensor;

/* Text that grows; `failed` where there was no memory. */
typedef struct text_buffer {
    char *text;
    size_t length;
    size_t capacity;
    bool failed;
} text_buffer;

void text_add(text_buffer *b, const char *text);
/* As a JSON string, ASCII only. */
void text_add_string(text_buffer *b, const char *text);
void text_add_number(text_buffer *b, uint64_t number);

typedef struct metadata_item {
    const char *key;
    const char *value;
} metadata_item;

/* Write a file whose first tensor begins at a multiple of `align`, with its own hash in it. The
 * metadata is in the order of its keys. `buffer` is for elements on their way. */
pk_status tensor_file_write(replacement *target, const new_tensor *tensors, size_t count,
                            const metadata_item *metadata, size_t metadata_count, size_t align,
                            uint8_t buffer[POCK_BUFFER_BYTES]);
/* Widest elements first, then by name: the order of Python's files. */
void tensor_file_sort(new_tensor *tensors, size_t count);

#endif
