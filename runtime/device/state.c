/* The state from files: there is never a second copy of it (state.py). */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "model.h"

static const char misfit_fix[] =
    "use a checkpoint of this artifact, or a state_dict of the same model";

bool frozen_path(const pock_model *model, char path[POCK_PATH_BYTES])
{
    return path_join(path, model->folder, "frozen.safetensors");
}

static pk_status misfit(pock_model *model, const char *path, const char *name, const char *what)
{
    return pock_fail(&model->error, PK_E_MISMATCH, "state-mismatch", misfit_fix,
                     "%s does not fit this artifact: '%s' %s", path, name, what);
}

/* Whether a file has a tensor in the type and shape of the program, or with its dimensions as
 * memory holds them. */
static bool same_type(const pk_tensor *t, const stored_tensor *s, bool as_kept)
{
    if (!element_same(s->type, element_of(t->dtype)) || s->rank != t->rank) {
        return false;
    }
    for (uint32_t d = 0; d < t->rank; d++) {
        const uint32_t from = as_kept && t->order != NULL ? t->order[d] : d;
        if (s->shape[d] != (uint64_t)t->shape[from]) {
            return false;
        }
    }
    return true;
}

pk_status state_check_frozen(pock_model *model, const tensor_file *frozen)
{
    const core *c = &model->core;
    const uint32_t count = c->tensor_count(model->context);
    for (uint32_t i = 0; i < count; i++) {
        const pk_tensor *t = NULL;
        uint64_t offset = 0;
        if (c->tensor_at(model->context, i, &t) != PK_OK || (t->flags & PK_FROZEN) == 0u) {
            continue;
        }
        const stored_tensor *s = tensor_file_find(frozen, t->name);
        if (s == NULL || !same_type(t, s, true) ||
            c->frozen_offset(model->context, i, &offset) != PK_OK ||
            s->begin - frozen->data_begin != offset) {
            return pock_fail(&model->error, PK_E_DAMAGED, "damaged-tensors",
                             "copy the folder again, or compile the model again",
                             "%s does not fit: '%s' is not where the program reads it",
                             frozen->path, t->name);
        }
    }
    return PK_OK;
}

/* The tensor under its own name, or under one that is tied to it. */
static const stored_tensor *find_stored(const pock_model *model, const tensor_file *f,
                                        const char *name)
{
    const stored_tensor *found = tensor_file_find(f, name);
    json key = {NULL, NULL};
    json value = {NULL, NULL};
    json_walk walk = json_members(model->manifest.aliases);
    while (found == NULL && json_next(&walk, &key, &value)) {
        char alias[POCK_NAME_BYTES];
        if (json_equals(value, name) && json_string(key, alias, sizeof alias)) {
            found = tensor_file_find(f, alias);
        }
    }
    return found;
}

static pk_status cut_off(const tensor_file *f)
{
    return tensor_file_damaged(f->path, strerror(errno), f->error);
}

static pk_status fill(pock_model *model, uint32_t index, const pk_tensor *t, const tensor_file *f,
                      const stored_tensor *s)
{
    void *memory = NULL;
    const uint32_t bytes = s->type.bytes;
    const uint64_t elements = t->nbytes / bytes;
    if (t->order == NULL && (t->flags & PK_FROZEN) == 0u) {
        const pk_status status = model->core.tensor_memory(model->context, index, &memory);
        if (status != PK_OK) {
            return model_core_status(model, status);
        }
        return read_at(f->file, memory, t->nbytes, s->begin) ? PK_OK : cut_off(f);
    }
    for (uint64_t first = 0; first < elements;) {
        const uint64_t left = elements - first;
        const uint64_t most = POCK_BUFFER_BYTES / bytes;
        const uint64_t count = left < most ? left : most;
        if (!read_at(f->file, model->buffer, count * bytes, s->begin + first * bytes)) {
            return cut_off(f);
        }
        const pk_status status =
            model->core.tensor_write(model->context, index, first, count, model->buffer);
        if (status != PK_OK) {
            return model_core_status(model, status);
        }
        first += count;
    }
    return PK_OK;
}

/* Give a frozen tensor what the artifact's file holds, in case it was given something else. Its
 * memory may be written then. */
static pk_status restore(pock_model *model, uint32_t index, const pk_tensor *t)
{
    char path[POCK_PATH_BYTES];
    tensor_file frozen;
    void *memory = NULL;
    if (model->core.frozen_changed(model->context) == 0u) {
        return PK_OK;
    }
    pk_status status = frozen_path(model, path) ? PK_OK : PK_E_ARGUMENT;
    if (status == PK_OK) {
        status = tensor_file_open(&frozen, path, &model->error);
    }
    if (status != PK_OK) {
        return status;
    }
    const stored_tensor *s = tensor_file_find(&frozen, t->name);
    if (s == NULL || model->core.tensor_memory(model->context, index, &memory) != PK_OK ||
        !read_at(frozen.file, memory, t->nbytes, s->begin)) {
        status = cut_off(&frozen);
    }
    tensor_file_close(&frozen);
    return status;
}

static pk_status clear(pock_model *model, uint32_t index, const pk_tensor *t)
{
    void *memory = NULL;
    const pk_status status = model->core.tensor_memory(model->context, index, &memory);
    if (status == PK_OK) {
        memset(memory, 0, (size_t)t->nbytes);
    }
    return model_core_status(model, status);
}

static pk_status fill_all(pock_model *model, const tensor_file *f, bool small, bool own)
{
    const core *c = &model->core;
    const uint32_t count = c->tensor_count(model->context);
    for (uint32_t i = 0; i < count; i++) {
        const pk_tensor *t = NULL;
        pk_status status = c->tensor_at(model->context, i, &t);
        if (status != PK_OK || t->kind == PK_CONSTANT) {
            continue;
        }
        const stored_tensor *s = find_stored(model, f, t->name);
        if (own) {
            model->stored[i] = s != NULL;
        }
        if (s != NULL) {
            status = fill(model, i, t, f, s);
        } else if (t->kind == PK_OPT_STATE) {
            status = clear(model, i, t);
        } else if ((t->flags & PK_FROZEN) != 0u && small) {
            status = restore(model, i, t);
        }
        if (status != PK_OK) {
            return status;
        }
    }
    const int64_t step = tensor_file_number(f, "pock.step", 0);
    const int64_t seed = tensor_file_number(f, "pock.seed", model->manifest.seed);
    model->diverged = false;
    return model_core_status(model, c->progress_set(model->context, (uint64_t)step, seed));
}

/* A tensor that no step reads may come in a file, if it is what it was when it was compiled in. */
static pk_status check_unread(pock_model *model, const tensor_file *f, const stored_tensor *s,
                              const char *name, const tensor_file *frozen)
{
    enum { HALF = POCK_BUFFER_BYTES / 2 };
    const stored_tensor *own = tensor_file_find(frozen, name);
    if (own == NULL || strncmp(name, "pock.pad.", 9) == 0 || strncmp(name, "constant.", 9) == 0) {
        return pock_fail(&model->error, PK_E_MISMATCH, "state-mismatch", misfit_fix,
                         "%s does not fit this artifact: there is no tensor '%s'", f->path, name);
    }
    bool same = own->rank == s->rank && element_same(own->type, s->type) &&
                own->end - own->begin == s->end - s->begin &&
                memcmp(own->shape, s->shape, own->rank * sizeof own->shape[0]) == 0;
    if (!same) {
        return misfit(model, f->path, name, "is of another type");
    }
    const uint64_t size = s->end - s->begin;
    for (uint64_t at = 0; at < size && same; at += HALF) {
        const uint64_t count = size - at < HALF ? size - at : HALF;
        if (!read_at(f->file, model->buffer, count, s->begin + at) ||
            !read_at(frozen->file, model->buffer + HALF, count, own->begin + at)) {
            return cut_off(f);
        }
        same = memcmp(model->buffer, model->buffer + HALF, (size_t)count) == 0;
    }
    return same ? PK_OK
                : pock_fail(&model->error, PK_E_MISMATCH, "folded-tensor",
                            "compile the model again with these weights",
                            "'%s' differs, but it is frozen and part of the compiled code", name);
}

static pk_status check_given(pock_model *model, const tensor_file *f, const tensor_file *frozen)
{
    const core *c = &model->core;
    for (size_t i = 0; i < f->count; i++) {
        const stored_tensor *s = &f->tensors[i];
        const pk_tensor *t = NULL;
        char name[POCK_NAME_BYTES];
        uint32_t index = 0;
        pk_status status = PK_OK;
        manifest_canonical(&model->manifest, s->name, name, sizeof name);
        if (c->tensor_find(model->context, name, &index) != PK_OK) {
            status = check_unread(model, f, s, name, frozen);
        } else if (c->tensor_at(model->context, index, &t) != PK_OK || t->kind == PK_CONSTANT ||
                   !same_type(t, s, false)) {
            status = misfit(model, f->path, name, "is of another type");
        }
        if (status != PK_OK) {
            return status;
        }
    }
    return PK_OK;
}

static pk_status check_present(pock_model *model, const tensor_file *f, bool small,
                               const tensor_file *frozen)
{
    json key = {NULL, NULL};
    json value = {NULL, NULL};
    json_walk walk = json_members(model->manifest.tensors);
    while (json_next(&walk, &key, &value)) {
        char name[POCK_NAME_BYTES];
        if (!json_string(key, name, sizeof name) ||
            !manifest_in_state_dict(&model->manifest, name) ||
            find_stored(model, f, name) != NULL) {
            continue;
        }
        if (!small || tensor_file_find(frozen, name) == NULL) {
            return misfit(model, f->path, name, "is missing");
        }
    }
    return PK_OK;
}

/* Whether the file is a small one, which the artifact's frozen tensors complete. */
static pk_status check_size(pock_model *model, const tensor_file *f, bool *small)
{
    json value = {NULL, NULL};
    char hash[SHA256_DIGITS + 1] = "unreadable";
    *small = json_find(f->metadata, "pock.frozen", &value);
    if (*small && !json_equals(value, model->frozen_hash)) {
        (void)json_string(value, hash, sizeof hash);
        return pock_fail(&model->error, PK_E_MISMATCH, "state-mismatch", misfit_fix,
                         "%s does not fit this artifact: its frozen tensors have hash %s, the "
                         "artifact's %s",
                         f->path, hash, model->frozen_hash);
    }
    return PK_OK;
}

pk_status state_load(pock_model *model, tensor_file *f)
{
    char path[POCK_PATH_BYTES];
    tensor_file frozen;
    bool small = false;
    pk_status status = tensor_file_check_digest(f, model->buffer);
    status = status == PK_OK ? check_size(model, f, &small) : status;
    if (status != PK_OK) {
        return status;
    }
    status = frozen_path(model, path) ? tensor_file_open(&frozen, path, &model->error)
                                      : PK_E_ARGUMENT;
    if (status != PK_OK) {
        return status;
    }
    status = check_given(model, f, &frozen);
    if (status == PK_OK) {
        status = check_present(model, f, small, &frozen);
    }
    tensor_file_close(&frozen);
    return status == PK_OK ? fill_all(model, f, small, false) : status;
}

pk_status state_read_initial(pock_model *model)
{
    char path[POCK_PATH_BYTES];
    tensor_file f;
    bool small = false;
    if (!path_join(path, model->folder, "state.safetensors")) {
        return PK_E_ARGUMENT;
    }
    pk_status status = tensor_file_open(&f, path, &model->error);
    if (status != PK_OK) {
        return status;
    }
    status = check_size(model, &f, &small);
    for (size_t i = 0; i < f.count && status == PK_OK; i++) {
        const pk_tensor *t = NULL;
        char name[POCK_NAME_BYTES];
        uint32_t index = 0;
        manifest_canonical(&model->manifest, f.tensors[i].name, name, sizeof name);
        if (model->core.tensor_find(model->context, name, &index) != PK_OK ||
            model->core.tensor_at(model->context, index, &t) != PK_OK ||
            !same_type(t, &f.tensors[i], false)) {
            status = misfit(model, path, name, "is unknown or of another type");
        }
    }
    const uint32_t count = model->core.tensor_count(model->context);
    for (uint32_t i = 0; i < count && status == PK_OK; i++) {
        const pk_tensor *t = NULL;
        if (model->core.tensor_at(model->context, i, &t) == PK_OK &&
            (t->kind == PK_PARAM || t->kind == PK_BUFFER) && (t->flags & PK_FROZEN) == 0u &&
            find_stored(model, &f, t->name) == NULL) {
            status = misfit(model, path, t->name, "is missing");
        }
    }
    if (status == PK_OK) {
        status = fill_all(model, &f, true, true);
    }
    tensor_file_close(&f);
    return status;
}

pk_status pock_load_checkpoint(pock_model *model, const char *path)
{
    tensor_file f;
    pk_status status = model_check_open(model);
    if (status != PK_OK || path == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    status = tensor_file_open(&f, path, &model->error);
    if (status == PK_OK) {
        status = state_load(model, &f);
        tensor_file_close(&f);
    }
    return status;
}

pk_status state_check_finite(pock_model *model)
{
    uint32_t index = 0;
    const pk_tensor *t = NULL;
    const pk_status status = model->core.state_check(model->context, &index);
    if (status == PK_OK && !model->diverged) {
        return PK_OK;
    }
    const bool named = status == PK_E_NONFINITE &&
                       model->core.tensor_at(model->context, index, &t) == PK_OK;
    return pock_fail(&model->error, PK_E_NONFINITE, "nonfinite-state",
                     "go on from the last good checkpoint",
                     "the state is not saved: %s%s%s is NaN or infinite", named ? "'" : "",
                     named ? t->name : "the loss", named ? "'" : "");
}
