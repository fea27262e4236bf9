/* manifest.h: what an artifact says of itself (manifest.py). The file stays mapped. */
#ifndef POCK_MANIFEST_H
#define POCK_MANIFEST_H

#include "file.h"
#include "json.h"

enum { POCK_FORMAT_VERSION = 2 };

typedef struct manifest {
    file_view view;
    json root;
    json machine;
    json files;
    json entries;
    json tensors;
    json aliases;
    json class_names;
    uint64_t state_bytes;
    uint64_t arena_bytes;
    uint64_t frozen_bytes;
    uint64_t batch_rows;
    uint64_t micro_batches;
    int64_t seed;
    double learning_rate;
    char producer[64];
    char target[64];
    char arch[32];
} manifest;

/* What the tables in step.so do not say of an input or output. */
typedef struct port_spec {
    int64_t low;
    int64_t high;
    int64_t ignore;
    bool batched;
    bool ranged;
    bool has_ignore;
    char meaning[32];
} port_spec;

pk_status manifest_open(manifest *m, const char *folder, pock_error *error);
/* What is in `m->view`. */
pk_status manifest_parse(manifest *m, const char *folder, pock_error *error);
void manifest_close(manifest *m);
/* Whether this machine can run the code. */
pk_status manifest_check_machine(const manifest *m, const char *folder, pock_error *error,
                                 uint8_t buffer[POCK_BUFFER_BYTES]);
/* Size, and unless `unverified` the hash, of every file. */
pk_status manifest_check_files(const manifest *m, const char *folder, bool unverified,
                               pock_error *error, uint8_t buffer[POCK_BUFFER_BYTES]);
/* The hash of a file, 64 digits. */
bool manifest_hash_of(const manifest *m, const char *file, char digits[SHA256_DIGITS + 1]);
/* Kernel calls of an entry; 0 if there is none of that name. */
uint64_t manifest_steps(const manifest *m, const char *entry);
/* An input or output (`side`: "inputs" or "outputs") of an entry, by its position. */
bool manifest_port(const manifest *m, const char *entry, const char *side, uint32_t number,
                   port_spec *spec);
/* The name under which a tensor is kept; `name` itself unless it is tied to another. */
void manifest_canonical(const manifest *m, json name, char *kept, size_t capacity);
/* Whether a tensor belongs to the model's state_dict. */
bool manifest_in_state_dict(const manifest *m, const char *name);

/* Write a manifest that differs in hash and size of some files. */
typedef struct new_file {
    const char *name;
    char digits[SHA256_DIGITS + 1];
    uint64_t size;
} new_file;
pk_status manifest_write(const manifest *m, const new_file *files, size_t count, int target,
                         const char *path, pock_error *error);

#endif
