/* Writing so that a power cut, a full disk or a kill leaves the old content or the new one.
 * The same names and locks as the Python side (files.py): the two exclude each other. */
#define _GNU_SOURCE
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

pk_status write_failed(pock_error *error, const char *path)
{
    return pock_fail(error, PK_E_WRITE, "write-failed", "free some space, or choose another place",
                     "cannot write %s: %s; what was there before is untouched", path,
                     strerror(errno));
}

static pk_status busy(pock_error *error, const char *path)
{
    return pock_fail(error, PK_E_BUSY, "write-busy", "wait for it, or choose another place",
                     "another process is writing %s", path);
}

bool sync_folder(const char *folder)
{
    const int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    /* Some file systems of memory cards cannot; their renames are written in order. */
    const bool done = fsync(file) == 0 || errno == EINVAL || errno == ENOTSUP;
    (void)close(file);
    return done;
}

static bool sync_parent(const char *path)
{
    char folder[POCK_PATH_BYTES];
    const size_t length = (size_t)(path_name(path) - path);
    if (length == 0u || length >= sizeof folder) {
        return sync_folder(".");
    }
    memcpy(folder, path, length);
    folder[length] = '\0';
    return sync_folder(folder);
}

pk_status lock_file(int file)
{
    return flock(file, LOCK_EX | LOCK_NB) == 0 ? PK_OK
           : errno == EWOULDBLOCK              ? PK_E_BUSY
                                               : PK_E_WRITE;
}

static bool name_temporary(char temporary[POCK_PATH_BYTES], const char *path)
{
    const char *name = path_name(path);
    const int length = snprintf(temporary, POCK_PATH_BYTES, "%.*s.%s.tmp", (int)(name - path), path,
                                name);
    return length > 0 && length < POCK_PATH_BYTES;
}

/* Open and lock; PK_E_WRITE with errno. The one before may have renamed what was opened before it
 * let go of the lock, so the name is looked at again. */
static pk_status open_locked(const char *path, int flags, int *file)
{
    for (;;) {
        struct stat opened;
        struct stat named;
        *file = open(path, flags | O_CLOEXEC, 0644);
        if (*file < 0) {
            return PK_E_WRITE;
        }
        const pk_status status = lock_file(*file);
        if (status == PK_OK && fstat(*file, &opened) == 0 && stat(path, &named) == 0 &&
            opened.st_ino == named.st_ino && opened.st_dev == named.st_dev) {
            return PK_OK;
        }
        const int reason = errno;
        (void)close(*file);
        *file = -1;
        errno = reason;
        if (status != PK_OK) {
            return status;
        }
    }
}

pk_status replace_begin(replacement *r, const char *path, pock_error *error)
{
    r->file = -1;
    r->error = error;
    if (!path_resolve(r->path, path) || !name_temporary(r->temporary, r->path)) {
        return write_failed(error, path);
    }
    const pk_status status = open_locked(r->temporary, O_RDWR | O_CREAT, &r->file);
    if (status == PK_E_BUSY) {
        return busy(error, r->path);
    }
    if (status != PK_OK || ftruncate(r->file, 0) != 0) {
        const pk_status failed = write_failed(error, r->path);
        replace_abandon(r);
        return failed;
    }
    return PK_OK;
}

bool copy_file(const char *from, const char *to)
{
    uint8_t buffer[4096];
    const int source = open(from, O_RDONLY | O_CLOEXEC);
    const int target = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    struct stat info;
    /* An artifact also holds programs. */
    bool done = source >= 0 && target >= 0 && fstat(source, &info) == 0 &&
                fchmod(target, info.st_mode & 0777u) == 0;
    while (done) {
        const ssize_t got = read(source, buffer, sizeof buffer);
        if (got <= 0) {
            done = got == 0 && fsync(target) == 0;
            break;
        }
        done = write_all(target, buffer, (uint64_t)got);
    }
    const int reason = errno;
    if (source >= 0) {
        (void)close(source);
    }
    if (target >= 0) {
        (void)close(target);
    }
    errno = reason;
    return done;
}

bool link_or_copy(const char *from, const char *to)
{
    return link(from, to) == 0 || copy_file(from, to);
}

/* Give the content a second name, so that there is no moment without `path`. */
static bool keep_as_previous(const char *path)
{
    char previous[POCK_PATH_BYTES];
    char fresh[POCK_PATH_BYTES];
    struct stat info;
    if (stat(path, &info) != 0) {
        return errno == ENOENT;
    }
    const int length = snprintf(previous, sizeof previous, "%s.previous", path);
    if (length >= (int)sizeof previous ||
        snprintf(fresh, sizeof fresh, "%s.previous.new", path) >= (int)sizeof fresh) {
        errno = ENAMETOOLONG;
        return false;
    }
    (void)unlink(fresh);
    return link_or_copy(path, fresh) && rename(fresh, previous) == 0;
}

pk_status replace_end(replacement *r, bool keep_previous)
{
    bool done = fsync(r->file) == 0;
    done = done && (!keep_previous || keep_as_previous(r->path));
    done = done && rename(r->temporary, r->path) == 0;
    if (!done) {
        const pk_status failed = write_failed(r->error, r->path);
        replace_abandon(r);
        return failed;
    }
    done = sync_parent(r->path);
    const pk_status status = done ? PK_OK : write_failed(r->error, r->path);
    (void)close(r->file);
    r->file = -1;
    return status;
}

void replace_abandon(replacement *r)
{
    if (r->file >= 0) {
        (void)unlink(r->temporary);
        (void)close(r->file);
        r->file = -1;
    }
}

/* Files only: an artifact has no folders in it. */
static void empty_folder(const char *path)
{
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return;
    }
    const struct dirent *entry = NULL;
    while ((entry = readdir(folder)) != NULL) {
        (void)unlinkat(dirfd(folder), entry->d_name, 0);
    }
    (void)closedir(folder);
}

pk_status replace_folder_begin(folder_replacement *r, const char *path, pock_error *error)
{
    r->folder = -1;
    r->error = error;
    if (!path_resolve(r->path, path) || !name_temporary(r->temporary, r->path) ||
        (mkdir(r->temporary, 0755) != 0 && errno != EEXIST)) {
        return write_failed(error, path);
    }
    const pk_status status = open_locked(r->temporary, O_RDONLY | O_DIRECTORY, &r->folder);
    if (status != PK_OK) {
        return status == PK_E_BUSY ? busy(error, r->path) : write_failed(error, r->path);
    }
    empty_folder(r->temporary);
    return PK_OK;
}

static bool sync_files(const char *path)
{
    DIR *folder = opendir(path);
    bool done = folder != NULL;
    const struct dirent *entry = NULL;
    while (done && (entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        const int file = openat(dirfd(folder), entry->d_name, O_RDONLY | O_CLOEXEC);
        done = file >= 0 && fsync(file) == 0;
        if (file >= 0) {
            (void)close(file);
        }
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
    return done && sync_folder(path);
}

/* Swap two folders; where the system cannot do that at once, by two renames. */
static bool exchange(const char *fresh, const char *old)
{
#if defined(SYS_renameat2)
    const unsigned rename_exchange = 2;
    if (syscall(SYS_renameat2, AT_FDCWD, fresh, AT_FDCWD, old, rename_exchange) == 0) {
        return true;
    }
    if (errno != EINVAL && errno != ENOSYS) {
        return false;
    }
#endif
    char aside[POCK_PATH_BYTES];
    if (snprintf(aside, sizeof aside, "%s.previous", old) >= (int)sizeof aside) {
        errno = ENAMETOOLONG;
        return false;
    }
    empty_folder(aside);
    (void)rmdir(aside);
    if (rename(old, aside) != 0 || rename(fresh, old) != 0) {
        return false;
    }
    empty_folder(aside);
    (void)rmdir(aside);
    return true;
}

pk_status replace_folder_end(folder_replacement *r)
{
    struct stat info;
    bool done = sync_files(r->temporary);
    if (done && stat(r->path, &info) == 0) {
        done = exchange(r->temporary, r->path);
    } else if (done) {
        done = rename(r->temporary, r->path) == 0;
    }
    done = done && sync_parent(r->path);
    const pk_status status = done ? PK_OK : write_failed(r->error, r->path);
    replace_folder_abandon(r);
    return status;
}

void replace_folder_abandon(folder_replacement *r)
{
    if (r->folder >= 0) {
        empty_folder(r->temporary);
        (void)rmdir(r->temporary);
        (void)close(r->folder);
        r->folder = -1;
    }
}
