#include "array_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

pk_status array_file_bad(const char *path, const char *why, pock_error *error)
{
    return pock_fail(error, PK_E_DATA_FILE, "data-file",
                     "write it with numpy.savez(path, x=..., target=...), numbers only",
                     "cannot read %s: %s", path, why);
}

static pk_status read_npy(array_file *f)
{
    f->arrays = calloc(1, sizeof f->arrays[0]);
    if (f->arrays == NULL) {
        return array_file_bad(f->path, "there is no memory for its header", f->error);
    }
    f->count = 1;
    const char *wrong = npy_parse(f->view.data, f->view.size, &f->arrays[0]);
    return wrong == NULL ? PK_OK : array_file_bad(f->path, wrong, f->error);
}

static pk_status read_safetensors(array_file *f)
{
    tensor_file t;
    pock_error error;
    memset(&t, 0, sizeof t);
    t.view = f->view;
    t.file = -1;
    t.path = f->path;
    t.error = &error;
    pk_status status = tensor_file_parse(&t);
    f->arrays = status == PK_OK ? calloc(t.count + 1u, sizeof f->arrays[0]) : NULL;
    if (f->arrays == NULL) {
        free(t.tensors);
        return array_file_bad(f->path, "it is no valid safetensors file", f->error);
    }
    for (size_t i = 0; i < t.count; i++) {
        const stored_tensor *s = &t.tensors[i];
        array *found = &f->arrays[f->count];
        if (json_string(s->name, found->name, sizeof found->name)) {
            found->type = s->type;
            found->rank = s->rank;
            memcpy(found->shape, s->shape, sizeof found->shape);
            found->data = f->view.data + s->begin;
            f->count++;
        }
    }
    free(t.tensors);
    return PK_OK;
}

pk_status array_file_open(array_file *f, const char *path, array_wanted wanted, void *user,
                          pock_error *error)
{
    memset(f, 0, sizeof *f);
    f->path = path;
    f->error = error;
    if (!view_open(&f->view, path)) {
        if (errno == ENOENT) {
            return pock_fail(error, PK_E_DATA_FILE, "data-file", "check the path",
                             "there is no file %s", path);
        }
        return array_file_bad(path, strerror(errno), error);
    }
    pk_status status = PK_OK;
    if (path_ends_with(path, ".safetensors")) {
        status = read_safetensors(f);
    } else if (f->view.size >= 2u && memcmp(f->view.data, "PK", 2) == 0) {
        status = zip_read(f, wanted, user);
    } else {
        status = read_npy(f);
    }
    if (status != PK_OK) {
        array_file_close(f);
    }
    return status;
}

void array_file_close(array_file *f)
{
    for (size_t i = 0; i < f->count; i++) {
        if (f->arrays[i].inflated != NULL) {
            (void)munmap(f->arrays[i].inflated, (size_t)f->arrays[i].inflated_bytes);
        }
    }
    free(f->arrays);
    f->arrays = NULL;
    f->count = 0;
    view_close(&f->view);
}
