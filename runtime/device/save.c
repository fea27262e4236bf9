/* The state to files: checkpoints, whole artifacts, exports. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model.h"

/* What a file will hold, and where it comes from. */
typedef struct listing {
    pock_model *model;
    tensor_file frozen; /* the artifact's file, for what no step reads */
    char path[POCK_PATH_BYTES];
    new_tensor *tensors;
    size_t count;
    char **names; /* those that were made here */
    size_t name_count;
    bool failed;
} listing;

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

static void listing_end(listing *l)
{
    for (size_t i = 0; i < l->name_count; i++) {
        free(l->names[i]);
    }
    free(l->names);
    free(l->tensors);
    tensor_file_close(&l->frozen);
}

/* Room for every tensor, and for those that are tied again under their second names. */
static pk_status listing_begin(listing *l, pock_model *model)
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

static void list_program(listing *l, bool full, bool optimizer)
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

static void list_unread(listing *l, bool hidden)
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

static void list_aliases(listing *l)
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

static pk_status write_listing(listing *l, replacement *r, const metadata_item *metadata,
                               size_t metadata_count)
{
    if (l->failed) {
        return model_core_status(l->model, PK_E_MEMORY);
    }
    tensor_file_sort(l->tensors, l->count);
    return tensor_file_write(r, l->tensors, l->count, metadata, metadata_count, 8,
                             l->model->buffer);
}

/* The state with optimizer and progress: all of the model's tensors, or, if `frozen_hash` is given,
 * those that steps change. */
static pk_status write_state(pock_model *model, replacement *r, const char *frozen_hash,
                             const char *run)
{
    listing l;
    metadata_item metadata[5];
    char step_text[24];
    char seed_text[24];
    uint64_t step = 0;
    int64_t seed = 0;
    size_t count = 0;
    pk_status status = listing_begin(&l, model);
    if (status != PK_OK) {
        return status;
    }
    list_program(&l, frozen_hash == NULL, true);
    if (frozen_hash == NULL) {
        list_unread(&l, true);
    }
    (void)model->core.progress_get(model->context, &step, &seed);
    (void)snprintf(step_text, sizeof step_text, "%" PRIu64, step);
    (void)snprintf(seed_text, sizeof seed_text, "%" PRId64, seed);
    metadata[count++] = (metadata_item){"format", "pt"};
    if (frozen_hash != NULL) {
        metadata[count++] = (metadata_item){"pock.frozen", frozen_hash};
    }
    if (run != NULL) {
        metadata[count++] = (metadata_item){"pock.run", run};
    }
    metadata[count++] = (metadata_item){"pock.seed", seed_text};
    metadata[count++] = (metadata_item){"pock.step", step_text};
    status = write_listing(&l, r, metadata, count);
    listing_end(&l);
    return status;
}

pk_status state_save(pock_model *model, const char *path, uint32_t flags, const char *run)
{
    replacement r;
    /* A file that others complete must be able to: frozen tensors that were given other values are
     * nowhere else. */
    const bool full =
        (flags & POCK_FULL) != 0u || model->core.frozen_changed(model->context) != 0u;
    pk_status status = state_check_finite(model);
    status = status == PK_OK ? replace_begin(&r, path, &model->error) : status;
    if (status != PK_OK) {
        return status;
    }
    status = write_state(model, &r, full ? NULL : model->frozen_hash, run);
    if (status == PK_OK) {
        return replace_end(&r, true);
    }
    replace_abandon(&r);
    return status;
}

pk_status pock_save_checkpoint(pock_model *model, const char *path, uint32_t flags)
{
    const pk_status status = model_check_open(model);
    if (status != PK_OK || path == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    return state_save(model, path, flags, NULL);
}

pk_status pock_export(pock_model *model, const char *path)
{
    replacement r;
    listing l;
    const metadata_item metadata = {"format", "pt"};
    pk_status status = model_check_open(model);
    if (status != PK_OK || path == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    status = state_check_finite(model);
    status = status == PK_OK ? replace_begin(&r, path, &model->error) : status;
    if (status != PK_OK) {
        return status;
    }
    status = listing_begin(&l, model);
    if (status == PK_OK) {
        list_program(&l, true, false);
        list_unread(&l, false);
        list_aliases(&l);
        status = write_listing(&l, &r, &metadata, 1);
        listing_end(&l);
    }
    if (status == PK_OK) {
        return replace_end(&r, false);
    }
    replace_abandon(&r);
    return status;
}

/* --- Whole artifacts ---------------------------------------------------------------------- */

/* The file of frozen tensors with their present values, each where it was. An open
 * file has its tensors in the order of their places. */
static pk_status write_frozen(pock_model *model, replacement *r)
{
    listing l;
    json order = {NULL, NULL};
    char orders[POCK_PATH_BYTES];
    metadata_item metadata[2] = {{"format", "pt"}, {"pock.order", orders}};
    pk_status status = listing_begin(&l, model);
    if (status != PK_OK) {
        return status;
    }
    for (size_t i = 0; i < l.frozen.count && !l.failed; i++) {
        char name[POCK_NAME_BYTES];
        uint32_t index = 0;
        if (!json_string(l.frozen.tensors[i].name, name, sizeof name)) {
            continue;
        }
        const char *kept = keep_name(&l, name);
        if (kept != NULL) {
            add_of_file(&l, kept, i);
            if (model->core.tensor_find(model->context, name, &index) == PK_OK) {
                l.tensors[l.count - 1u].number = index;
                l.tensors[l.count - 1u].read = read_kept;
            }
        }
    }
    const bool ordered = json_find(l.frozen.metadata, "pock.order", &order);
    if (l.failed || (ordered && !json_string(order, orders, sizeof orders))) {
        status = model_core_status(model, PK_E_MEMORY);
    } else {
        status = tensor_file_write(r, l.tensors, l.count, metadata, ordered ? 2u : 1u, 64,
                                   model->buffer);
    }
    listing_end(&l);
    return status;
}

static pk_status open_new(folder_replacement *folder, const char *name, replacement *r)
{
    r->error = folder->error;
    if (!path_join(r->temporary, folder->temporary, name) || !path_join(r->path, folder->path, name)) {
        return PK_E_ARGUMENT;
    }
    FILE *made = fopen(r->temporary, "we");
    if (made == NULL) {
        r->file = -1;
        return write_failed(folder->error, folder->path);
    }
    r->file = dup(fileno(made));
    (void)fclose(made);
    return r->file >= 0 ? PK_OK : write_failed(folder->error, folder->path);
}

/* Close a new file and note its hash and size. */
static pk_status finish_new(pock_model *model, replacement *r, const char *name, new_file *file)
{
    struct stat info;
    const bool sized = fstat(r->file, &info) == 0;
    (void)close(r->file);
    r->file = -1;
    file->name = name;
    if (!sized || !hash_file(r->temporary, model->buffer, file->digits)) {
        return write_failed(r->error, r->path);
    }
    file->size = (uint64_t)info.st_size;
    return PK_OK;
}

/* Take over the files that stay as they are. */
static pk_status take_files(pock_model *model, folder_replacement *folder, bool with_frozen,
                            bool same)
{
    json key = {NULL, NULL};
    json value = {NULL, NULL};
    json_walk walk = json_members(model->manifest.files);
    while (json_next(&walk, &key, &value)) {
        char name[256];
        char from[POCK_PATH_BYTES];
        char to[POCK_PATH_BYTES];
        struct stat info;
        if (!json_string(key, name, sizeof name) || strcmp(name, "state.safetensors") == 0 ||
            (strcmp(name, "frozen.safetensors") == 0 && !with_frozen) ||
            !path_join(from, model->folder, name) || !path_join(to, folder->temporary, name)) {
            continue;
        }
#if defined(POCK_STATIC)
        if (strcmp(name, "step.so") == 0 && stat(from, &info) != 0) {
            continue;
        }
#endif
        /* A second name only where the first one goes away with the folder that is replaced. */
        (void)info;
        if (!(same ? link_or_copy(from, to) : copy_file(from, to))) {
            return write_failed(folder->error, folder->path);
        }
    }
    return PK_OK;
}

static pk_status fill_folder(pock_model *model, folder_replacement *folder, bool same)
{
    const bool changed = model->core.frozen_changed(model->context) != 0u;
    const char *frozen_hash = model->frozen_hash;
    new_file files[2];
    size_t count = 0;
    replacement r;
    pk_status status = take_files(model, folder, !changed, same);
    if (status == PK_OK && changed) {
        status = open_new(folder, "frozen.safetensors", &r);
        status = status == PK_OK ? write_frozen(model, &r) : status;
        status = r.file < 0 ? status
                 : status == PK_OK
                     ? finish_new(model, &r, "frozen.safetensors", &files[count])
                     : (pk_status)((void)close(r.file), status);
        frozen_hash = files[count].digits;
        count++;
    }
    if (status == PK_OK) {
        status = open_new(folder, "state.safetensors", &r);
    }
    if (status == PK_OK) {
        status = write_state(model, &r, frozen_hash, NULL);
        status = status == PK_OK ? finish_new(model, &r, "state.safetensors", &files[count])
                                 : (pk_status)((void)close(r.file), status);
        count++;
    }
    if (status == PK_OK) {
        status = open_new(folder, "manifest.json", &r);
    }
    if (status == PK_OK) {
        status = manifest_write(&model->manifest, files, count, r.file, folder->path,
                                folder->error);
        (void)close(r.file);
    }
    return status;
}

/* What is there, if anything, must be an artifact, of whatever version or state. */
static pk_status check_replaceable(pock_model *model, const char *folder)
{
    manifest found;
    pock_error error;
    struct stat info;
    if (stat(folder, &info) != 0) {
        return PK_OK;
    }
    const pk_status status = manifest_open(&found, folder, &error);
    manifest_close(&found);
    if (status == PK_E_NO_ARTIFACT && rmdir(folder) != 0) {
        model->error = error;
        return status;
    }
    return PK_OK;
}

/* Go on with the files that replaced the artifact's own. */
static pk_status saved_as(pock_model *model)
{
    manifest fresh;
    const pk_status status = manifest_open(&fresh, model->folder, &model->error);
    if (status != PK_OK) {
        manifest_close(&fresh);
        return status;
    }
    manifest_close(&model->manifest);
    model->manifest = fresh;
    (void)manifest_hash_of(&fresh, "frozen.safetensors", model->frozen_hash);
    return PK_OK;
}

pk_status pock_save(pock_model *model, const char *folder)
{
    folder_replacement r;
    char own[POCK_PATH_BYTES];
    pk_status status = model_check_open(model);
    if (status != PK_OK || folder == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    status = state_check_finite(model);
    status = status == PK_OK ? check_replaceable(model, folder) : status;
    status = status == PK_OK ? replace_folder_begin(&r, folder, &model->error) : status;
    if (status != PK_OK) {
        return status;
    }
    const bool same = path_resolve(own, model->folder) && strcmp(own, r.path) == 0;
    status = fill_folder(model, &r, same);
    if (status != PK_OK) {
        replace_folder_abandon(&r);
        return status;
    }
    status = replace_folder_end(&r);
    return status == PK_OK && same ? saved_as(model) : status;
}
