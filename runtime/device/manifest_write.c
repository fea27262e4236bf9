/* A manifest with other hashes: the same text, with some numbers replaced. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "manifest.h"

enum { MAX_EDITS = 8 };

/* A piece of the text and what takes its place. */
typedef struct edit {
    json old;
    char text[SHA256_DIGITS + 4];
} edit;

static size_t edits_of(const manifest *m, const new_file *files, size_t count, edit *edits)
{
    size_t found = 0;
    for (size_t i = 0; i < count && found + 3u <= MAX_EDITS; i++) {
        json spec = {NULL, NULL};
        edit *size = &edits[found];
        edit *hash = &edits[found + 1u];
        if (json_find(m->files, files[i].name, &spec) && json_find(spec, "nbytes", &size->old) &&
            json_find(spec, "sha256", &hash->old)) {
            (void)snprintf(size->text, sizeof size->text, "%" PRIu64, files[i].size);
            (void)snprintf(hash->text, sizeof hash->text, "\"%s\"", files[i].digits);
            found += 2u;
        }
    }
    return found;
}

static int by_place(const void *a, const void *b)
{
    const char *first = ((const edit *)a)->old.begin;
    const char *second = ((const edit *)b)->old.begin;
    return (first > second) - (first < second);
}

/* The text with the edits made; its length in `*length`. NULL if there is no memory. */
static char *edited(const manifest *m, edit *edits, size_t count, size_t *length)
{
    const char *text = (const char *)m->view.data;
    const char *end = text + m->view.size;
    char *made = malloc((size_t)m->view.size + count * sizeof edits[0].text);
    if (made == NULL) {
        return NULL;
    }
    char *to = made;
    qsort(edits, count, sizeof edits[0], by_place);
    for (size_t i = 0; i < count; i++) {
        const size_t before = (size_t)(edits[i].old.begin - text);
        const size_t size = strlen(edits[i].text);
        memcpy(to, text, before);
        memcpy(to + before, edits[i].text, size);
        to += before + size;
        text = edits[i].old.end;
    }
    memcpy(to, text, (size_t)(end - text));
    *length = (size_t)(to - made) + (size_t)(end - text);
    return made;
}

/* Fill the digest in, which is that of the text without its line. */
static bool sign(char *text, size_t length)
{
    json root = {NULL, NULL};
    json key = {NULL, NULL};
    json value = {NULL, NULL};
    if (!json_check(text, length, &root)) {
        return false;
    }
    json_walk walk = json_members(root);
    while (json_next(&walk, &key, &value)) {
        if (json_equals(key, "digest") && value.end - value.begin == SHA256_DIGITS + 2) {
            sha256 hash;
            char digits[SHA256_DIGITS + 1];
            sha256_begin(&hash);
            sha256_add(&hash, text, (size_t)(key.begin - text));
            sha256_add(&hash, walk.at, (size_t)(text + length - walk.at));
            sha256_end(&hash, digits);
            memcpy(text + (value.begin - text) + 1, digits, SHA256_DIGITS);
            return true;
        }
    }
    return false;
}

pk_status manifest_write(const manifest *m, const new_file *files, size_t count, int target,
                         const char *path, pock_error *error)
{
    edit edits[MAX_EDITS];
    size_t length = 0;
    const size_t found = edits_of(m, files, count, edits);
    char *text = edited(m, edits, found, &length);
    if (text == NULL) {
        return pock_fail(error, PK_E_MEMORY, "not-enough-memory", "close other programs",
                         "there is no memory for a new manifest");
    }
    const bool signed_ = sign(text, length);
    pk_status status = PK_OK;
    if (!signed_) {
        status = pock_fail(error, PK_E_DAMAGED, "damaged-file", NULL,
                           "the manifest that %s would replace is damaged", path);
    } else if (!write_all(target, text, length)) {
        status = write_failed(error, path);
    }
    free(text);
    return status;
}
