#define _GNU_SOURCE
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool path_join(char path[POCK_PATH_BYTES], const char *folder, const char *name)
{
    const int length = snprintf(path, POCK_PATH_BYTES, "%s/%s", folder, name);
    return length > 0 && length < POCK_PATH_BYTES;
}

const char *path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? path : slash + 1;
}

bool path_ends_with(const char *path, const char *suffix)
{
    const size_t length = strlen(path);
    const size_t wanted = strlen(suffix);
    return length >= wanted && strcmp(path + length - wanted, suffix) == 0;
}

static bool no_room(void)
{
    errno = ENAMETOOLONG;
    return false;
}

bool path_resolve(char resolved[POCK_PATH_BYTES], const char *path)
{
    char parent[POCK_PATH_BYTES];
    char *found = realpath(path, NULL);
    if (found != NULL) {
        const int length = snprintf(resolved, POCK_PATH_BYTES, "%s", found);
        free(found);
        return length < POCK_PATH_BYTES ? true : no_room();
    }
    size_t length = strlen(path);
    while (length > 1u && path[length - 1u] == '/') {
        length--;
    }
    if (errno != ENOENT || length == 0u || length >= sizeof parent) {
        return false;
    }
    memcpy(parent, path, length);
    parent[length] = '\0';
    char name[NAME_MAX + 1];
    const char *last = path_name(parent);
    if (strlen(last) >= sizeof name) {
        return no_room();
    }
    memcpy(name, last, strlen(last) + 1u);
    const size_t folder = (size_t)(last - parent);
    parent[folder] = '\0';
    found = realpath(folder == 0u ? "." : parent, NULL);
    if (found == NULL) {
        return false;
    }
    const char *given = strcmp(found, "/") == 0 ? "" : found;
    const bool fits = path_join(resolved, given, name);
    free(found);
    return fits ? true : no_room();
}

bool view_open(file_view *view, const char *path)
{
    view->data = NULL;
    view->size = 0;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    struct stat info;
    bool done = fstat(file, &info) == 0;
    if (done && !S_ISREG(info.st_mode)) {
        errno = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
        done = false;
    }
    if (done && info.st_size > 0) {
        void *data = (uint64_t)info.st_size > SIZE_MAX
                         ? MAP_FAILED
                         : mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, file, 0);
        done = data != MAP_FAILED;
        if (done) {
            view->data = data;
            view->size = (uint64_t)info.st_size;
        }
    }
    const int reason = errno;
    (void)close(file);
    errno = reason;
    return done;
}

void view_close(file_view *view)
{
    if (view->data != NULL) {
        (void)munmap((void *)(uintptr_t)view->data, (size_t)view->size);
    }
    view->data = NULL;
    view->size = 0;
}

bool read_at(int file, void *target, uint64_t length, uint64_t offset)
{
    uint8_t *to = target;
    while (length > 0u) {
        const size_t piece = length < (1u << 30) ? (size_t)length : (size_t)1 << 30;
        const ssize_t got = pread(file, to, piece, (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            errno = got == 0 ? EIO : errno;
            return false;
        }
        to += got;
        offset += (uint64_t)got;
        length -= (uint64_t)got;
    }
    return true;
}

bool write_all(int file, const void *data, uint64_t length)
{
    const uint8_t *from = data;
    while (length > 0u) {
        const size_t piece = length < (1u << 30) ? (size_t)length : (size_t)1 << 30;
        const ssize_t put = write(file, from, piece);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return false;
        }
        from += put;
        length -= (uint64_t)put;
    }
    return true;
}

bool hash_rest(int file, uint64_t offset, sha256 *hash, uint8_t buffer[POCK_BUFFER_BYTES])
{
    for (;;) {
        const ssize_t got = pread(file, buffer, POCK_BUFFER_BYTES, (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return got == 0;
        }
        sha256_add(hash, buffer, (size_t)got);
        offset += (uint64_t)got;
    }
}

bool hash_file(const char *path, uint8_t buffer[POCK_BUFFER_BYTES], char digits[SHA256_DIGITS + 1])
{
    sha256 hash;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    sha256_begin(&hash);
    const bool done = hash_rest(file, 0, &hash, buffer);
    sha256_end(&hash, digits);
    (void)close(file);
    return done;
}
