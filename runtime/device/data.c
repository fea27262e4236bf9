/* Opening data: which array is which input, and do shape and type fit? */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data.h"

enum { MAX_NAMES = 6, NAME_BYTES = 256, MAX_PARTS = 65536 };

/* The names that an input's array may have, the best first. */
typedef struct names {
    char text[MAX_NAMES][NAME_BYTES];
    uint32_t count;
} names;

static void add_name(names *n, const char *name)
{
    for (uint32_t i = 0; i < n->count; i++) {
        if (strcmp(n->text[i], name) == 0) {
            return;
        }
    }
    if (n->count < MAX_NAMES) {
        (void)snprintf(n->text[n->count], NAME_BYTES, "%s", name);
        n->count++;
    }
}

static bool is_target(const pk_tensor *t)
{
    return strcmp(t->name, "target") == 0;
}

static names accepted(const entry_spec *entry, uint32_t input)
{
    static const char *const targets[] = {"targets", "y", "label", "labels"};
    static const char *const inputs[] = {"x", "X", "input", "inputs"};
    names n = {{""}, 0};
    uint32_t others = 0;
    uint32_t position = 0;
    add_name(&n, entry->inputs[input]->name);
    for (uint32_t i = 0; i < entry->input_count; i++) {
        position = i == input ? others : position;
        others += is_target(entry->inputs[i]) ? 0u : 1u;
    }
    const bool target = is_target(entry->inputs[input]);
    for (size_t i = 0; i < 4u && (target || others == 1u); i++) {
        add_name(&n, target ? targets[i] : inputs[i]);
    }
    if (!target && others > 1u) {
        char numbered[NAME_BYTES];
        (void)snprintf(numbered, sizeof numbered, "x%" PRIu32, position);
        add_name(&n, numbered);
        (void)snprintf(numbered, sizeof numbered, "x_%" PRIu32, position);
        add_name(&n, numbered);
    }
    return n;
}

static bool wanted_by_any(void *user, const char *name)
{
    const pock_data *d = user;
    for (uint32_t i = 0; i < d->entry->input_count; i++) {
        const names n = accepted(d->entry, i);
        for (uint32_t k = 0; k < n.count; k++) {
            if (strcmp(n.text[k], name) == 0) {
                return true;
            }
        }
    }
    return false;
}

static bool wanted_always(void *user, const char *name)
{
    (void)user;
    (void)name;
    return true;
}

static void spell_shape(char *text, size_t capacity, uint32_t rank, const uint64_t *shape)
{
    size_t used = (size_t)snprintf(text, capacity, "[");
    for (uint32_t i = 0; i < rank && used < capacity; i++) {
        used += (size_t)snprintf(text + used, capacity - used, "%s%" PRIu64, i > 0u ? "," : "",
                                 shape[i]);
    }
    if (used < capacity) {
        (void)snprintf(text + used, capacity - used, "]");
    }
}

/* An input as messages show it: `x f32[N,3,224,224]`. */
static void spell_input(const pock_data *d, uint32_t input, char *text, size_t capacity)
{
    const pk_tensor *t = d->entry->inputs[input];
    size_t used = (size_t)snprintf(text, capacity, "%s %s[", t->name,
                                   element_name(element_of(t->dtype)));
    for (uint32_t i = 0; i < t->rank && used < capacity; i++) {
        const bool rows = i == 0u && d->entry->input_specs[input].batched;
        used += rows ? (size_t)snprintf(text + used, capacity - used, "N")
                     : (size_t)snprintf(text + used, capacity - used, "%s%" PRId64,
                                        i > 0u ? "," : "", t->shape[i]);
    }
    if (used < capacity) {
        (void)snprintf(text + used, capacity - used, "]");
    }
}

static pk_status no_memory(pock_data *d)
{
    return model_core_status(d->model, PK_E_MEMORY);
}

static pk_status add_segment(pock_data *d, uint32_t input, const uint8_t *data, uint64_t rows)
{
    column *c = &d->columns[input];
    if ((c->count & (c->count + 1u)) == 0u) { /* full at 0, 1, 3, 7 and so on */
        segment *grown = realloc(c->segments, (c->count * 2u + 2u) * sizeof c->segments[0]);
        if (grown == NULL) {
            return no_memory(d);
        }
        c->segments = grown;
    }
    c->segments[c->count] = (segment){data, c->rows, rows};
    c->count++;
    c->rows += rows;
    return PK_OK;
}

/* Give an input the rows of an array, after those it has. */
static pk_status take_array(pock_data *d, uint32_t input, const array *a, const char *path)
{
    const pk_tensor *t = d->entry->inputs[input];
    const element type = element_of(t->dtype);
    const bool batched = d->entry->input_specs[input].batched;
    char expected[256];
    char got[256];
    bool fits = a->rank == t->rank;
    uint64_t elements = 1;
    for (uint32_t i = 0; i < t->rank && fits; i++) {
        if (i > 0u || !batched) {
            fits = a->shape[i] == (uint64_t)t->shape[i];
            elements *= (uint64_t)t->shape[i];
        }
    }
    spell_input(d, input, expected, sizeof expected);
    if (!fits) {
        spell_shape(got, sizeof got, a->rank, a->shape);
        return pock_fail(&d->model->error, PK_E_DATA_SHAPE, "input-shape",
                         "give the shape that the model was compiled for, or compile for this one",
                         "%s expects %s and got shape %s in %s", d->name, expected, got, path);
    }
    column *c = &d->columns[input];
    if (!element_convertible(a->type, type) || (c->count > 0u && !element_same(c->type, a->type))) {
        return pock_fail(&d->model->error, PK_E_DATA_SHAPE, "input-type",
                         "convert it with numpy's astype", "%s expects %s and got %s in %s",
                         d->name, expected, element_name(a->type), path);
    }
    c->type = a->type;
    c->row_elements = elements;
    return add_segment(d, input, a->data, batched ? a->shape[0] : 1u);
}

static pk_status missing(pock_data *d, uint32_t input, const char *present)
{
    char fix[512];
    const names n = accepted(d->entry, input);
    size_t used = (size_t)snprintf(fix, sizeof fix, "call it ");
    for (uint32_t i = 0; i < n.count && used < sizeof fix; i++) {
        used += (size_t)snprintf(fix + used, sizeof fix - used, "%s%s", i > 0u ? " or " : "",
                                 n.text[i]);
    }
    return pock_fail(&d->model->error, PK_E_DATA_NAMES, "data-names", fix,
                     "%s needs an array '%s', %s has %s", d->name, n.text[0], d->path, present);
}

static pk_status open_arrays(pock_data *d)
{
    array_file *f = &d->files[0];
    const bool single = d->entry->input_count == 1u && path_ends_with(d->path, ".npy");
    const pk_status status = array_file_open(f, d->path, single ? wanted_always : wanted_by_any, d,
                                             &d->model->error);
    if (status != PK_OK) {
        return status;
    }
    d->file_count = 1;
    if (single) {
        return take_array(d, 0, &f->arrays[0], d->path);
    }
    if (f->count == 1u && f->arrays[0].name[0] == '\0') {
        return array_file_bad(d->path, "it holds a single array without a name", &d->model->error);
    }
    for (uint32_t i = 0; i < d->entry->input_count; i++) {
        const names n = accepted(d->entry, i);
        const array *found = NULL;
        for (uint32_t k = 0; k < n.count && found == NULL; k++) {
            for (size_t j = 0; j < f->count; j++) {
                if (strcmp(f->arrays[j].name, n.text[k]) == 0) {
                    found = &f->arrays[j];
                }
            }
        }
        const pk_status taken =
            found == NULL ? missing(d, i, "none of that name") : take_array(d, i, found, d->path);
        if (taken != PK_OK) {
            return taken;
        }
    }
    return PK_OK;
}

/* --- Folders ------------------------------------------------------------------------------ */

/* Whether a file is `<name>.npy`, `<name>.bin`, or a part of it, `<name>.<any>.npy`. */
static bool is_part(const char *file, const char *name)
{
    const size_t length = strlen(name);
    return strncmp(file, name, length) == 0 && file[length] == '.' &&
           (path_ends_with(file, ".npy") || path_ends_with(file, ".bin"));
}

/* Rows in the input's own type, without a header. */
static pk_status take_raw(pock_data *d, uint32_t input, const file_view *view, const char *path)
{
    const pk_tensor *t = d->entry->inputs[input];
    array a;
    memset(&a, 0, sizeof a);
    a.type = element_of(t->dtype);
    a.rank = t->rank;
    a.data = view->data;
    uint64_t row = a.type.bytes;
    const bool batched = d->entry->input_specs[input].batched;
    for (uint32_t i = 0; i < t->rank; i++) {
        a.shape[i] = (uint64_t)t->shape[i];
        row *= i > 0u || !batched ? a.shape[i] : 1u;
    }
    if (row == 0u || view->size % row != 0u || (!batched && view->size != row)) {
        return pock_fail(&d->model->error, PK_E_DATA_SHAPE, "input-shape",
                         "write whole rows in the input's own type",
                         "%s has %" PRIu64 " bytes, a row of %s has %" PRIu64, path, view->size,
                         t->name, row);
    }
    if (batched) {
        a.shape[0] = view->size / row;
    }
    return take_array(d, input, &a, path);
}

static pk_status take_file(pock_data *d, uint32_t input, const char *file)
{
    char path[POCK_PATH_BYTES];
    if (!path_join(path, d->path, file)) {
        return array_file_bad(d->path, "its path is too long", &d->model->error);
    }
    if (path_ends_with(file, ".bin")) {
        file_view *view = &d->views[d->view_count];
        if (!view_open(view, path)) {
            return array_file_bad(path, strerror(errno), &d->model->error);
        }
        d->view_count++;
        return take_raw(d, input, view, path);
    }
    array_file *f = &d->files[d->file_count];
    const pk_status status = array_file_open(f, path, wanted_always, NULL, &d->model->error);
    if (status != PK_OK) {
        return status;
    }
    d->file_count++;
    return take_array(d, input, &f->arrays[0], path);
}

static pk_status open_parts(pock_data *d, uint32_t input, struct dirent **list, int count)
{
    const names n = accepted(d->entry, input);
    for (uint32_t k = 0; k < n.count; k++) {
        for (int i = 0; i < count; i++) {
            if (is_part(list[i]->d_name, n.text[k])) {
                const pk_status status = take_file(d, input, list[i]->d_name);
                if (status != PK_OK) {
                    return status;
                }
            }
        }
        if (d->columns[input].count > 0u) {
            return PK_OK;
        }
    }
    return missing(d, input, "no file of that name, .npy or .bin");
}

static pk_status open_folder(pock_data *d)
{
    struct dirent **list = NULL;
    const int count = scandir(d->path, &list, NULL, alphasort);
    pk_status status = count < 0 || count > MAX_PARTS
                           ? array_file_bad(d->path, "its files cannot be listed", &d->model->error)
                           : PK_OK;
    /* A file may serve several inputs only if their names were the same. */
    const size_t room = count > 0 ? (size_t)count * d->entry->input_count + 1u : 1u;
    if (status == PK_OK) {
        free(d->files);
        d->files = calloc(room, sizeof d->files[0]);
        d->views = calloc(room, sizeof d->views[0]);
        status = d->files == NULL || d->views == NULL ? no_memory(d) : PK_OK;
    }
    for (uint32_t i = 0; i < d->entry->input_count && status == PK_OK; i++) {
        status = open_parts(d, i, list, count);
    }
    for (int i = 0; i < count; i++) {
        free(list[i]);
    }
    free(list);
    return status;
}

static pk_status count_rows(pock_data *d)
{
    uint32_t first = UINT32_MAX;
    d->rows = 1;
    for (uint32_t i = 0; i < d->entry->input_count; i++) {
        if (!d->entry->input_specs[i].batched) {
            continue;
        }
        if (first == UINT32_MAX) {
            first = i;
            d->rows = d->columns[i].rows;
        } else if (d->columns[i].rows != d->rows) {
            return pock_fail(&d->model->error, PK_E_DATA_SHAPE, "data-rows",
                             "give one row per sample in each",
                             "the arrays of %s have different numbers of rows: %s has %" PRIu64
                             ", %s has %" PRIu64,
                             d->path, d->entry->inputs[first]->name, d->rows,
                             d->entry->inputs[i]->name, d->columns[i].rows);
        }
    }
    return PK_OK;
}

static pk_status open_data(pock_data *d)
{
    struct stat info;
    d->files = calloc(1, sizeof d->files[0]);
    if (d->files == NULL) {
        return no_memory(d);
    }
    const bool folder = stat(d->path, &info) == 0 && S_ISDIR(info.st_mode);
    const pk_status status = folder ? open_folder(d) : open_arrays(d);
    return status == PK_OK ? count_rows(d) : status;
}

static pk_status find_entry(pock_model *model, const char *name, int *found)
{
    for (int i = 0; i < ENTRY_KINDS; i++) {
        if (strcmp(name, ENTRY_NAMES[i]) == 0 && model->entries[i].present) {
            *found = i;
            return PK_OK;
        }
    }
    return pock_fail(&model->error, PK_E_NOT_FOUND, "no-entry",
                     "choose from: train_step, evaluate, predict",
                     "the artifact has no entry point '%s'", name);
}

pk_status pock_data_open(pock_model *model, const char *entry, const char *path, pock_data **data)
{
    int kind = 0;
    pk_status status = model_check_open(model);
    if (status != PK_OK || entry == NULL || path == NULL || data == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    *data = NULL;
    status = find_entry(model, entry, &kind);
    if (status != PK_OK) {
        return status;
    }
    pock_data *d = calloc(1, sizeof *d);
    if (d == NULL) {
        return model_core_status(model, PK_E_MEMORY);
    }
    d->model = model;
    d->entry = &model->entries[kind];
    d->name = ENTRY_NAMES[kind];
    if (snprintf(d->path, sizeof d->path, "%s", path) >= (int)sizeof d->path) {
        status = array_file_bad("the data", "its path is too long", &model->error);
    } else {
        status = open_data(d);
    }
    if (status != PK_OK) {
        pock_data_close(d);
        return status;
    }
    *data = d;
    return PK_OK;
}

void pock_data_close(pock_data *data)
{
    if (data == NULL) {
        return;
    }
    for (size_t i = 0; i < data->file_count; i++) {
        array_file_close(&data->files[i]);
    }
    for (size_t i = 0; i < data->view_count; i++) {
        view_close(&data->views[i]);
    }
    for (uint32_t i = 0; i < POCK_MAX_PORTS; i++) {
        free(data->columns[i].segments);
    }
    free(data->files);
    free(data->views);
    free(data);
}

uint64_t pock_data_rows(const pock_data *data)
{
    return data == NULL ? 0u : data->rows;
}
