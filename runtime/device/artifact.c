/* Writing a whole artifact, with its present weights. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "listing.h"

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
    list_frozen(&l);
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

/* Write one file of a new folder with `fill`, and note its hash and size. */
typedef pk_status (*fill_file)(pock_model *model, replacement *r, const void *user);

static pk_status write_new(pock_model *model, folder_replacement *folder, new_file *file,
                           fill_file fill, const void *user)
{
    replacement r;
    struct stat info;
    r.error = folder->error;
    if (!path_join(r.temporary, folder->temporary, file->name) ||
        !path_join(r.path, folder->path, file->name)) {
        return PK_E_ARGUMENT;
    }
    r.file = open(r.temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (r.file < 0) {
        return write_failed(folder->error, folder->path);
    }
    pk_status status = fill(model, &r, user);
    const bool sized = fstat(r.file, &info) == 0;
    (void)close(r.file);
    if (status == PK_OK && (!sized || !hash_file(r.temporary, model->buffer, file->digits))) {
        status = write_failed(folder->error, folder->path);
    }
    file->size = sized ? (uint64_t)info.st_size : 0u;
    return status;
}

static pk_status fill_frozen(pock_model *model, replacement *r, const void *user)
{
    (void)user;
    return write_frozen(model, r);
}

static pk_status fill_state(pock_model *model, replacement *r, const void *user)
{
    return write_state(model, r, user, NULL);
}

typedef struct new_files {
    new_file files[2];
    size_t count;
} new_files;

static pk_status fill_manifest(pock_model *model, replacement *r, const void *user)
{
    const new_files *n = user;
    return manifest_write(&model->manifest, n->files, n->count, r->file, r->path, r->error);
}

/* A static program brings its own code, and its folder may have none. */
static bool may_be_missing(const char *name, const char *path)
{
#if defined(POCK_STATIC)
    return strcmp(name, "step.so") == 0 && access(path, F_OK) != 0;
#else
    (void)name;
    (void)path;
    return false;
#endif
}

/* Take over the files that stay as they are: by a second name only where the first one goes away
 * with the folder that is replaced. */
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
        if (!json_string(key, name, sizeof name) || strcmp(name, "state.safetensors") == 0 ||
            (strcmp(name, "frozen.safetensors") == 0 && !with_frozen) ||
            !path_join(from, model->folder, name) || !path_join(to, folder->temporary, name) ||
            may_be_missing(name, from)) {
            continue;
        }
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
    new_files made = {{{"frozen.safetensors", "", 0}}, 0};
    new_file listed = {"manifest.json", "", 0};
    pk_status status = take_files(model, folder, !changed, same);
    if (status == PK_OK && changed) {
        status = write_new(model, folder, &made.files[0], fill_frozen, NULL);
        frozen_hash = made.files[0].digits;
        made.count = 1;
    }
    if (status == PK_OK) {
        new_file *state = &made.files[made.count];
        state->name = "state.safetensors";
        status = write_new(model, folder, state, fill_state, frozen_hash);
        made.count++;
    }
    return status == PK_OK ? write_new(model, folder, &listed, fill_manifest, &made) : status;
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
