#define _GNU_SOURCE
#include "listing.h"

#include <stdlib.h>
#include <string.h>

static pk_status read_element(void *source, uint64_t number, uint64_t first, uint64_t count,
                              void *target)
{
    const listing *l = source;
    pock_model *model = l->model;
    return model_core_status(model, model->core.tensor_read(model->context, (uint32_t)number,
                                                            first, count, target));
}

/* In the order of memory, which is that of the file of frozen tensors. */
static pk_status read_kept(void *source, uint64_t number, uint64_t first, uint64_t count,
                           void *target)
{
    const listing *l = source;
    pock_model *model = l->model;
    const pk_tensor *t = NULL;
    void *memory = NULL;
    pk_status status = model->core.tensor_at(model->context, (uint32_t)number, &t);
    if (status == PK_OK) {
        status = model->core.tensor_memory(model->context, (uint32_t)number, &memory);
    }
    if (status == PK_OK) {
        const uint32_t bytes = element_of(t->dtype).bytes;
        memcpy(target, (const uint8_t *)memory + first * bytes, (size_t)(count * bytes));
    }
    return model_core_status(model, status);
}

static pk_status read_stored(void *source, uint64_t number, uint64_t first, uint64_t count,
                             void *target)
{
    const listing *l = source;
    const stored_tensor *s = &l->frozen.tensors[number];
    const uint64_t bytes = s->type.bytes;
    return read_at(l->frozen.file, target, count * bytes, s->begin + first * bytes)
               ? PK_OK
               : tensor_file_damaged(l->path, "it ends too early", &l->model->error);
}

static char *keep_name(listing *l, const char *name)
{
    char *copy = strdup(name);
    if (copy == NULL) {
        l->failed = true;
        return NULL;
    }
    l->names[l->name_count] = copy;
    l->name_count++;
    return copy;
}

static new_tensor *add(listing *l, const char *name)
{
    new_tensor *t = &l->tensors[l->count];
    l->count++;
    t->name = name;
    t->source = l;
    return t;
}

static void add_of_program(listing *l, const char *name, uint32_t index, const pk_tensor *t)
{
    new_tensor *made = add(l, name);
    made->dtype = t->dtype;
    made->rank = t->rank;
    made->nbytes = t->nbytes;
    made->number = index;
    made->read = read_element;
    for (uint32_t d = 0; d < t->rank; d++) {
        made->shape[d] = (uint64_t)t->shape[d];
    }
}

static bool dtype_of(element type, pk_dtype *dtype)
{
    for (int i = (int)PK_F64; i <= (int)PK_B1; i++) {
        if (element_same(type, element_of((pk_dtype)i))) {
            *dtype = (pk_dtype)i;
            return true;
        }
    }
    return false;
}

static void add_of_file(listing *l, const char *name, size_t number)
{
    const stored_tensor *s = &l->frozen.tensors[number];
    pk_dtype dtype = PK_U8;
    if (!dtype_of(s->type, &dtype)) {
        return;
    }
    new_tensor *made = add(l, name);
    made->dtype = dtype;
    made->rank = s->rank;
    made->nbytes = s->end - s->begin;
    made->number = number;
    made->read = read_stored;
    memcpy(made->shape, s->shape, sizeof made->shape);
}

/* Whether a tensor of the file is of the model, and no step reads it. */
static bool unread(const listing *l, size_t number, char name[POCK_NAME_BYTES])
{
    uint32_t index = 0;
    pock_model *model = l->model;
    return json_string(l->frozen.tensors[number].name, name, POCK_NAME_BYTES) &&
           strncmp(name, "pock.pad.", 9) != 0 &&
           model->core.tensor_find(model->context, name, &index) != PK_OK;
}

void listing_end(listing *l)
{
    for (size_t i = 0; i < l->name_count; i++) {
        free(l->names[i]);
    }
    free(l->names);
    free(l->tensors);
    tensor_file_close(&l->frozen);
}

pk_status listing_begin(listing *l, pock_model *model)
{
    memset(l, 0, sizeof *l);
    l->model = model;
    if (!frozen_path(model, l->path)) {
        return PK_E_ARGUMENT;
    }
    const pk_status status = tensor_file_open(&l->frozen, l->path, &model->error);
    if (status != PK_OK) {
        return status;
    }
    json key = {NULL, NULL};
    json value = {NULL, NULL};
    size_t room = model->core.tensor_count(model->context) + l->frozen.count + 1u;
    json_walk walk = json_members(model->manifest.aliases);
    while (json_next(&walk, &key, &value)) {
        room++;
    }
    l->tensors = calloc(room, sizeof l->tensors[0]);
    l->names = calloc(room, sizeof l->names[0]);
    if (l->tensors == NULL || l->names == NULL) {
        listing_end(l);
        return model_core_status(model, PK_E_MEMORY);
    }
    return PK_OK;
}

void list_program(listing *l, bool full, bool optimizer)
{
    pock_model *model = l->model;
    const core *c = &model->core;
    uint64_t step = 0;
    int64_t seed = 0;
    (void)c->progress_get(model->context, &step, &seed);
    const uint32_t count = c->tensor_count(model->context);
    for (uint32_t i = 0; i < count; i++) {
        const pk_tensor *t = NULL;
        if (c->tensor_at(model->context, i, &t) != PK_OK || t->kind == PK_CONSTANT ||
            (t->flags & PK_GRAD_SUM) != 0u || ((t->flags & PK_FROZEN) != 0u && !full)) {
            continue;
        }
        /* Before the first step the optimizer's tensors are as they begin; what is missing in a
         * file is zero. */
        const bool untouched = t->kind == PK_OPT_STATE && step == 0u && model->stored[i] == 0u;
        const bool wanted = t->kind == PK_OPT_STATE
                                ? optimizer && !untouched
                                : optimizer || manifest_in_state_dict(&model->manifest, t->name);
        if (wanted) {
            add_of_program(l, t->name, i, t);
        }
    }
}

void list_unread(listing *l, bool hidden)
{
    for (size_t i = 0; i < l->frozen.count; i++) {
        char name[POCK_NAME_BYTES];
        if (unread(l, i, name) &&
            (hidden || manifest_in_state_dict(&l->model->manifest, name))) {
            const char *kept = keep_name(l, name);
            if (kept != NULL) {
                add_of_file(l, kept, i);
            }
        }
    }
}

void list_aliases(listing *l)
{
    json key = {NULL, NULL};
    json value = {NULL, NULL};
    json_walk walk = json_members(l->model->manifest.aliases);
    while (json_next(&walk, &key, &value)) {
        const size_t count = l->count;
        char name[POCK_NAME_BYTES];
        for (size_t i = 0; i < count && json_string(key, name, sizeof name); i++) {
            if (json_equals(value, l->tensors[i].name)) {
                const char *kept = keep_name(l, name);
                if (kept != NULL) {
                    l->tensors[l->count] = l->tensors[i];
                    l->tensors[l->count].name = kept;
                    l->count++;
                }
                break;
            }
        }
    }
}

pk_status write_listing(listing *l, replacement *r, const metadata_item *metadata,
                               size_t metadata_count)
{
    if (l->failed) {
        return model_core_status(l->model, PK_E_MEMORY);
    }
    tensor_file_sort(l->tensors, l->count);
    return tensor_file_write(r, l->tensors, l->count, metadata, metadata_count, 8,
                             l->model->buffer);
}

void list_frozen(listing *l)
{
    for (size_t i = 0; i < l->frozen.count && !l->failed; i++) {
        char name[POCK_NAME_BYTES];
        uint32_t index = 0;
        if (!json_string(l->frozen.tensors[i].name, name, sizeof name)) {
            continue;
        }
        const char *kept = keep_name(l, name);
        if (kept != NULL) {
            add_of_file(l, kept, i);
            if (l->model->core.tensor_find(l->model->context, name, &index) == PK_OK) {
                l->tensors[l->count - 1u].number = index;
                l->tensors[l->count - 1u].read = read_kept;
            }
        }
    }
}
