/* .npz files: zip archives (PKWARE APPNOTE 6.3) of .npy files, stored or deflated, and zip64. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "array_file.h"
#include "model.h"

enum { STORED = 0, DEFLATED = 8, END_BYTES = 22, ENTRY_BYTES = 46, LOCAL_BYTES = 30 };

typedef struct member {
    char name[256];
    uint32_t method;
    uint32_t crc;
    uint64_t packed;
    uint64_t size;
    uint64_t header; /* of the member itself */
} member;

static uint64_t number(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;
    memcpy(&value, at, bytes); /* little-endian */
    return value;
}

static bool inside(const file_view *v, uint64_t at, uint64_t length)
{
    return at <= v->size && length <= v->size - at;
}

typedef struct directory {
    uint64_t at;
    uint64_t count;
} directory;

/* The end record is the last thing in a file but for a comment. */
static bool find_directory(const file_view *v, directory *d)
{
    static const uint8_t end_mark[4] = {'P', 'K', 5, 6};
    static const uint8_t locator_mark[4] = {'P', 'K', 6, 7};
    static const uint8_t end64_mark[4] = {'P', 'K', 6, 6};
    if (v->size < END_BYTES) {
        return false;
    }
    uint64_t at = v->size - END_BYTES;
    const uint64_t least = at > 65535u ? at - 65535u : 0u;
    while (memcmp(v->data + at, end_mark, 4) != 0) {
        if (at == least) {
            return false;
        }
        at--;
    }
    d->count = number(v->data + at + 10, 2);
    d->at = number(v->data + at + 16, 4);
    if (at >= 20u && memcmp(v->data + at - 20u, locator_mark, 4) == 0) {
        const uint64_t end64 = number(v->data + at - 20u + 8u, 8);
        if (!inside(v, end64, 56) || memcmp(v->data + end64, end64_mark, 4) != 0) {
            return false;
        }
        d->count = number(v->data + end64 + 32, 8);
        d->at = number(v->data + end64 + 48, 8);
    }
    return d->at <= v->size;
}

/* Sizes that do not fit 32 bits stand in a field of kind 1, in this order, only those. */
static bool read_zip64(const uint8_t *extra, uint64_t length, member *m)
{
    uint64_t *wide[3];
    size_t count = 0;
    if (m->size == UINT32_MAX) {
        wide[count++] = &m->size;
    }
    if (m->packed == UINT32_MAX) {
        wide[count++] = &m->packed;
    }
    if (m->header == UINT32_MAX) {
        wide[count++] = &m->header;
    }
    for (uint64_t at = 0; count > 0u && length - at >= 4u;) {
        const uint64_t kind = number(extra + at, 2);
        const uint64_t size = number(extra + at + 2, 2);
        at += 4u;
        if (size > length - at) {
            return false;
        }
        if (kind == 1u) {
            for (size_t i = 0; i < count; i++) {
                if (8u * (i + 1u) > size) {
                    return false;
                }
                *wide[i] = number(extra + at + 8u * i, 8);
            }
            return true;
        }
        at += size;
    }
    return true;
}

static bool read_member(const file_view *v, uint64_t *at, member *m)
{
    static const uint8_t mark[4] = {'P', 'K', 1, 2};
    if (!inside(v, *at, ENTRY_BYTES) || memcmp(v->data + *at, mark, 4) != 0) {
        return false;
    }
    const uint8_t *e = v->data + *at;
    const uint64_t name = number(e + 28, 2);
    const uint64_t extra = number(e + 30, 2);
    const uint64_t comment = number(e + 32, 2);
    if (!inside(v, *at + ENTRY_BYTES, name + extra + comment) || name >= sizeof m->name) {
        return false;
    }
    m->method = (uint32_t)number(e + 10, 2);
    m->crc = (uint32_t)number(e + 16, 4);
    m->packed = number(e + 20, 4);
    m->size = number(e + 24, 4);
    m->header = number(e + 42, 4);
    memcpy(m->name, e + ENTRY_BYTES, (size_t)name);
    m->name[name] = '\0';
    *at += ENTRY_BYTES + name + extra + comment;
    return read_zip64(e + ENTRY_BYTES + name, extra, m) && (number(e + 8, 2) & 1u) == 0u;
}

static const uint8_t *packed_data(const file_view *v, const member *m)
{
    static const uint8_t mark[4] = {'P', 'K', 3, 4};
    if (!inside(v, m->header, LOCAL_BYTES) || memcmp(v->data + m->header, mark, 4) != 0) {
        return NULL;
    }
    const uint8_t *local = v->data + m->header;
    const uint64_t begin = m->header + LOCAL_BYTES + number(local + 26, 2) + number(local + 28, 2);
    return inside(v, begin, m->packed) ? v->data + begin : NULL;
}

static bool file_has_room(const char *folder, uint64_t size)
{
    struct statvfs info;
    return statvfs(folder, &info) == 0 && (uint64_t)info.f_bavail * info.f_frsize > size;
}

/* Memory for what a member becomes: of the process if there is plenty, else of a file without a
 * name, which the system may write out. NULL if there is neither. */
static uint8_t *room_for(uint64_t size)
{
    if (size == 0u || size > SIZE_MAX) {
        return NULL;
    }
    int file = -1;
    if (size > available_bytes() / 2u) {
        char name[] = "/var/tmp/pock-XXXXXX";
        file = file_has_room("/var/tmp", size) ? mkstemp(name) : -1;
        if (file < 0) {
            return NULL;
        }
        (void)unlink(name);
        if (ftruncate(file, (off_t)size) != 0) {
            (void)close(file);
            return NULL;
        }
    }
    const int flags = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void *made = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, flags, file, 0);
    if (file >= 0) {
        (void)close(file);
    }
    return made == MAP_FAILED ? NULL : made;
}

static const char *unpack(const file_view *v, const member *m, array *found)
{
    const uint8_t *data = packed_data(v, m);
    if (data == NULL) {
        return "a member is cut off";
    }
    if (m->method == STORED) {
        return m->packed == m->size ? npy_parse(data, m->size, found) : "a member is cut off";
    }
    if (m->method != DEFLATED) {
        return "it is compressed in a way that only zip programs know; write it with numpy.savez";
    }
    /* No DEFLATE stream grows by more than this (RFC 1951: 258 bytes from 2 bits). */
    if (m->size / 1032u > m->packed) {
        return "a member's size is wrong";
    }
    uint8_t *room = room_for(m->size);
    if (room == NULL) {
        return "there is no room to unpack it; write it with numpy.savez, not savez_compressed";
    }
    found->inflated = room;
    found->inflated_bytes = m->size;
    const char *wrong = inflate_all(data, m->packed, room, m->size);
    if (wrong == NULL && crc32_of(0, room, m->size) != m->crc) {
        wrong = "a member's content does not match its checksum";
    }
    return wrong == NULL ? npy_parse(room, m->size, found) : wrong;
}

pk_status zip_read(array_file *f, array_wanted wanted, void *user)
{
    directory d;
    if (!find_directory(&f->view, &d)) {
        return array_file_bad(f->path, "it is no complete zip archive", f->error);
    }
    /* Every entry takes room in the file, so its number cannot be larger than this. */
    if (d.count > f->view.size / ENTRY_BYTES) {
        return array_file_bad(f->path, "its directory is damaged", f->error);
    }
    f->arrays = calloc((size_t)d.count + 1u, sizeof f->arrays[0]);
    if (f->arrays == NULL) {
        return array_file_bad(f->path, "there is no memory for its directory", f->error);
    }
    for (uint64_t i = 0; i < d.count; i++) {
        member m;
        array *found = &f->arrays[f->count];
        if (!read_member(&f->view, &d.at, &m)) {
            return array_file_bad(f->path, "its directory is damaged", f->error);
        }
        if (!path_ends_with(m.name, ".npy")) {
            continue;
        }
        m.name[strlen(m.name) - 4u] = '\0';
        memcpy(found->name, m.name, sizeof found->name);
        if (!wanted(user, m.name)) {
            continue;
        }
        f->count++;
        const char *wrong = unpack(&f->view, &m, found);
        if (wrong != NULL) {
            return array_file_bad(f->path, wrong, f->error);
        }
    }
    return PK_OK;
}
