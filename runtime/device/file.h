/* file.h: files that are mapped, hashed, and replaced so that nothing is lost. */
#ifndef POCK_FILE_H
#define POCK_FILE_H

#include <stdbool.h>

#include "message.h"
#include "sha256.h"

enum { POCK_PATH_BYTES = 4096, POCK_BUFFER_BYTES = 1 << 16 };

/* Write `<folder>/<name>`; false if it is too long. */
bool path_join(char path[POCK_PATH_BYTES], const char *folder, const char *name);
/* The path without links, also of what does not exist yet; false with errno. */
bool path_resolve(char resolved[POCK_PATH_BYTES], const char *path);
/* The last part of a path. */
const char *path_name(const char *path);
bool path_ends_with(const char *path, const char *suffix);

/* A whole file, mapped read-only. */
typedef struct file_view {
    const uint8_t *data;
    uint64_t size;
} file_view;

/* False with errno. An empty file is a view of no bytes. */
bool view_open(file_view *view, const char *path);
void view_close(file_view *view);

/* Read exactly `length` bytes from an offset; false if the file ends before, or with errno. */
bool read_at(int file, void *target, uint64_t length, uint64_t offset);
bool write_all(int file, const void *data, uint64_t length);
/* Hash all that is behind an offset, read in pieces of `buffer`. */
bool hash_rest(int file, uint64_t offset, sha256 *hash, uint8_t buffer[POCK_BUFFER_BYTES]);
bool hash_file(const char *path, uint8_t buffer[POCK_BUFFER_BYTES], char digits[SHA256_DIGITS + 1]);
/* Wait until the names in a folder are on the disk. */
bool sync_folder(const char *folder);
/* Take the only lock of a file or folder; PK_E_BUSY if another process has it. */
pk_status lock_file(int file);

/* A file that is being written beside the one that it will replace. The name is fixed, so that
 * what a killed process leaves is overwritten by the next; a lock refuses a second writer. */
typedef struct replacement {
    char path[POCK_PATH_BYTES];
    char temporary[POCK_PATH_BYTES];
    int file; /* -1 after the end */
    pock_error *error;
} replacement;

/* PK_E_WRITE or PK_E_BUSY, with the message in `error`. */
pk_status replace_begin(replacement *r, const char *path, pock_error *error);
/* Put what was written in place. The content before stays as `<path>.previous` if asked. */
pk_status replace_end(replacement *r, bool keep_previous);
/* Leave everything as it was; does nothing after the end. */
void replace_abandon(replacement *r);
/* Give a file a second name, or copy it where the file system has none; false with errno. */
bool link_or_copy(const char *from, const char *to);
bool copy_file(const char *from, const char *to);
/* PK_E_WRITE with errno's reason. */
pk_status write_failed(pock_error *error, const char *path);

/* A folder likewise. `temporary` is empty at first. */
typedef struct folder_replacement {
    char path[POCK_PATH_BYTES];
    char temporary[POCK_PATH_BYTES];
    int folder;
    pock_error *error;
} folder_replacement;

pk_status replace_folder_begin(folder_replacement *r, const char *path, pock_error *error);
pk_status replace_folder_end(folder_replacement *r);
void replace_folder_abandon(folder_replacement *r);

#endif
