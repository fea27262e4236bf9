/* array_file.h: named arrays out of .npy, .npz and .safetensors files. Nothing is copied but what
 * is compressed. */
#ifndef POCK_ARRAY_FILE_H
#define POCK_ARRAY_FILE_H

#include "tensor_file.h"

/* An array in memory, row-major; `data` need not be aligned. */
typedef struct array {
    char name[256];
    element type;
    uint32_t rank;
    uint64_t shape[POCK_MAX_RANK];
    const uint8_t *data;
    void *inflated; /* memory that belongs to it, or NULL */
    uint64_t inflated_bytes;
} array;

typedef struct array_file {
    file_view view;
    array *arrays;
    size_t count;
    const char *path;
    pock_error *error;
} array_file;

/* Whether an array of that name is wanted; what is not is not inflated. */
typedef bool (*array_wanted)(void *user, const char *name);

/* `path` must outlive the file. PK_E_DATA_FILE with the reason; nothing is to be closed then. */
pk_status array_file_open(array_file *f, const char *path, array_wanted wanted, void *user,
                          pock_error *error);
void array_file_close(array_file *f);
pk_status array_file_bad(const char *path, const char *why, pock_error *error);

/* The parts, for files that are in memory already. */
/* The header of an .npy file; NULL if it is good, else what is wrong. */
const char *npy_parse(const uint8_t *data, uint64_t size, array *found);
pk_status zip_read(array_file *f, array_wanted wanted, void *user);
/* Raw DEFLATE (RFC 1951) of exactly `size` bytes; NULL if it is good, else what is wrong. */
const char *inflate_all(const uint8_t *data, uint64_t length, uint8_t *out, uint64_t size);
uint32_t crc32_of(uint32_t crc, const uint8_t *data, uint64_t length);

#endif
