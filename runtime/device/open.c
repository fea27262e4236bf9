/* Opening a model: everything is checked before any of it is used. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "model.h"

uint32_t pock_abi_version(void)
{
    return POCK_ABI_VERSION;
}

const char *pock_status_text(pk_status status)
{
    return pk_status_text(status);
}

const char *pock_message(const pock_model *model)
{
    return model == NULL ? "there is no memory, or a pointer is NULL" : model->error.text;
}

pk_status model_core_status(pock_model *model, pk_status status)
{
    uint32_t entry = 0;
    uint32_t step = 0;
    int32_t code = 0;
    const char *kernel = NULL;
    const char *node = NULL;
    if (status == PK_OK) {
        return PK_OK;
    }
    if (status == PK_E_KERNEL &&
        model->core.failed_step(model->context, &entry, &step, &code) == PK_OK &&
        model->core.step_at(model->context, entry, step, &kernel, &node) == PK_OK) {
        return pock_fail(&model->error, status, "runtime-status", NULL,
                         "the runtime reports: %s (%s for %%%s returned %d)",
                         pk_status_text(status), kernel, node, (int)code);
    }
    return pock_fail(&model->error, status, "runtime-status", NULL, "the runtime reports: %s",
                     pk_status_text(status));
}

pk_status model_check_open(pock_model *model)
{
    if (model == NULL) {
        return PK_E_ARGUMENT;
    }
    if (model->context == NULL) {
        return pock_fail(&model->error, PK_E_ARGUMENT, "not-open", "open it without that flag",
                         "only the manifest of %s was read", model->folder);
    }
    return PK_OK;
}

/* A number of a file of the system, in units of `unit` bytes; UINT64_MAX if it is not there. */
static uint64_t system_number(const char *path, const char *label, uint64_t unit)
{
    char line[256];
    uint64_t number = UINT64_MAX;
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, (int)sizeof line, file) != NULL) {
        uint64_t found = 0;
        if (strncmp(line, label, strlen(label)) == 0 &&
            sscanf(line + strlen(label), "%" SCNu64, &found) == 1) {
            number = found > UINT64_MAX / unit ? UINT64_MAX : found * unit;
            break;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return number;
}

static uint64_t rest_of(uint64_t limit, uint64_t used)
{
    if (limit == UINT64_MAX || used == UINT64_MAX) {
        return UINT64_MAX;
    }
    return limit > used ? limit - used : 0u;
}

uint64_t available_bytes(void)
{
    uint64_t least = system_number("/proc/meminfo", "MemAvailable:", 1024);
    const uint64_t container = rest_of(system_number("/sys/fs/cgroup/memory.max", "", 1),
                                       system_number("/sys/fs/cgroup/memory.current", "", 1));
    least = container < least ? container : least;
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        const uint64_t own =
            rest_of(limit.rlim_cur, system_number("/proc/self/status", "VmSize:", 1024));
        least = own < least ? own : least;
    }
    return least;
}

static pk_status too_large(pock_model *model, uint64_t needed, uint64_t available)
{
    return pock_fail(&model->error, PK_E_TOO_LARGE, "not-enough-memory",
                     "close other programs, or compile with a smaller batch or fewer trained "
                     "tensors",
                     "the artifact needs %" PRIu64 " bytes of memory; %" PRIu64
                     " bytes are free and it cannot be opened",
                     needed, available);
}

static pk_status read_entry(pock_model *model, entry_spec *spec, const char *name)
{
    const core *c = &model->core;
    pk_entry_info info;
    spec->present = c->entry_find(model->context, name, &spec->number) == PK_OK;
    if (!spec->present) {
        return PK_OK;
    }
    bool good = c->entry_at(model->context, spec->number, &info) == PK_OK &&
                manifest_steps(&model->manifest, name) == info.steps;
    good = good && info.inputs <= POCK_MAX_PORTS && info.outputs <= POCK_MAX_PORTS;
    spec->input_count = good ? info.inputs : 0u;
    spec->output_count = good ? info.outputs : 0u;
    spec->rows = 1;
    for (uint32_t i = spec->input_count; good && i-- > 0u;) {
        good = c->input_at(model->context, spec->number, i, &spec->inputs[i]) == PK_OK &&
               manifest_port(&model->manifest, name, "inputs", i, &spec->input_specs[i]);
        if (good && spec->input_specs[i].batched && spec->inputs[i]->rank > 0u) {
            spec->rows = (uint64_t)spec->inputs[i]->shape[0];
        }
    }
    for (uint32_t i = 0; good && i < spec->output_count; i++) {
        port_spec port;
        good = c->output_at(model->context, spec->number, i, &spec->outputs[i]) == PK_OK &&
               manifest_port(&model->manifest, name, "outputs", i, &port);
        spec->output_batched[i] = good && port.batched && spec->outputs[i]->rank > 0u;
    }
    if (good && spec->rows > 0u) {
        return PK_OK;
    }
    return pock_fail(&model->error, PK_E_DAMAGED, "damaged-file", "compile the model again",
                     "the manifest of %s does not fit its program: entry %s", model->folder, name);
}

#if defined(POCK_STATIC)
/* SHA-256 of the step.so that has the same code as this program; a program that was linked by hand
 * need not have it. */
extern const char pock_static_step_hash[] __attribute__((weak));

static pk_status check_own_program(pock_model *model)
{
    char digits[SHA256_DIGITS + 1];
    const char *own = pock_static_step_hash;
    if (own == NULL || (manifest_hash_of(&model->manifest, "step.so", digits) &&
                        strcmp(digits, own) == 0)) {
        return PK_OK;
    }
    return pock_fail(&model->error, PK_E_TARGET, "foreign-program",
                     "use the pock-run in the artifact's own folder",
                     "this program has the code of another model than %s", model->folder);
}
#else
static pk_status check_own_program(const pock_model *model)
{
    (void)model;
    return PK_OK;
}
#endif

/* The tables and the manifest tell of the same memory. */
static pk_status check_program(pock_model *model, const pk_memory *needed)
{
    const manifest *m = &model->manifest;
    if (needed->state_bytes == m->state_bytes && needed->arena_bytes == m->arena_bytes &&
        needed->frozen_bytes == m->frozen_bytes) {
        return PK_OK;
    }
    return pock_fail(&model->error, PK_E_MISMATCH, "other-program",
                     "use the program that was made with this artifact",
                     "%s was compiled for another program: it has %" PRIu64 " bytes of state, the "
                     "program %" PRIu64,
                     model->folder, m->state_bytes, needed->state_bytes);
}

static pk_status open_program(pock_model *model, uint32_t threads)
{
    char path[POCK_PATH_BYTES];
    tensor_file frozen;
    pk_memory needed;
    pk_status status = path_join(path, model->folder, "step.so")
                           ? core_load(&model->core, path, &model->error)
                           : PK_E_ARGUMENT;
    if (status != PK_OK) {
        return status;
    }
    status = model_core_status(model, model->core.memory_needed(threads, &needed));
    status = status == PK_OK ? check_program(model, &needed) : status;
    const uint64_t available = available_bytes();
    if (status == PK_OK && needed.total_bytes > available) {
        status = too_large(model, needed.total_bytes, available);
    }
    if (status == PK_OK && frozen_path(model, path)) {
        status = tensor_file_open(&frozen, path, &model->error);
    }
    if (status != PK_OK) {
        return status;
    }
    const pk_frozen where = {frozen.file, 0, frozen.data_begin};
    status = model->core.open(threads, &where, &model->context);
    status = status == PK_E_MEMORY ? too_large(model, needed.total_bytes, available)
                                   : model_core_status(model, status);
    if (status == PK_OK) {
        status = state_check_frozen(model, &frozen);
    }
    tensor_file_close(&frozen);
    for (int i = 0; i < ENTRY_KINDS && status == PK_OK; i++) {
        status = read_entry(model, &model->entries[i], ENTRY_NAMES[i]);
    }
    return status;
}

static pk_status open_folder(pock_model *model, const char *folder,
                             const pock_open_options *options)
{
    const bool unverified = (options->flags & POCK_UNVERIFIED) != 0u;
    if (snprintf(model->folder, sizeof model->folder, "%s", folder) >=
        (int)sizeof model->folder - 32) {
        return pock_fail(&model->error, PK_E_ARGUMENT, "no-artifact", "use a shorter path",
                         "the path of the artifact is too long");
    }
    pk_status status = manifest_open(&model->manifest, model->folder, &model->error);
    if (status != PK_OK || (options->flags & POCK_MANIFEST_ONLY) != 0u) {
        return status;
    }
    status = manifest_check_machine(&model->manifest, model->folder, &model->error, model->buffer);
    if (status == PK_OK) {
        status = manifest_check_files(&model->manifest, model->folder, unverified, &model->error,
                                      model->buffer);
    }
    if (status == PK_OK && !manifest_hash_of(&model->manifest, "frozen.safetensors",
                                             model->frozen_hash)) {
        status = pock_fail(&model->error, PK_E_DAMAGED, "damaged-file", "compile the model again",
                           "the manifest of %s has no hash of its frozen tensors", folder);
    }
    if (status == PK_OK) {
        status = check_own_program(model);
    }
    if (status == PK_OK) {
        status = open_program(model, options->threads);
    }
    if (status == PK_OK) {
        model->stored = calloc(model->core.tensor_count(model->context) + 1u, 1);
        status = model->stored == NULL ? model_core_status(model, PK_E_MEMORY)
                                       : state_read_initial(model);
    }
    return status;
}

pk_status pock_open(const char *folder, const pock_open_options *options, pock_model **model)
{
    const pock_open_options plain = {0, 0};
    if (model == NULL) {
        return PK_E_ARGUMENT;
    }
    *model = NULL;
    if (folder == NULL) {
        return PK_E_ARGUMENT;
    }
    pock_model *made = calloc(1, sizeof *made);
    if (made == NULL) {
        return PK_E_MEMORY;
    }
    made->core.file = -1;
    made->buffer = aligned_alloc(64, POCK_BUFFER_BYTES);
    if (made->buffer == NULL) {
        free(made);
        return PK_E_MEMORY;
    }
    *model = made;
    const pk_status status = open_folder(made, folder, options == NULL ? &plain : options);
    if (status != PK_OK && made->context != NULL) {
        made->core.close(made->context);
        made->context = NULL;
    }
    return status;
}

void pock_close(pock_model *model)
{
    if (model == NULL) {
        return;
    }
    if (model->context != NULL) {
        model->core.close(model->context);
    }
    core_unload(&model->core);
    manifest_close(&model->manifest);
    free(model->stored);
    free(model->buffer);
    free(model);
}

static uint32_t element_count(json array)
{
    json key = {NULL, NULL};
    json value = {NULL, NULL};
    uint32_t count = 0;
    json_walk walk = json_members(array);
    while (json_next(&walk, &key, &value)) {
        count++;
    }
    return count;
}

static uint32_t input_count(const manifest *m)
{
    json entry = {NULL, NULL};
    json inputs = {NULL, NULL};
    return json_find(m->entries, "train_step", &entry) && json_find(entry, "inputs", &inputs)
               ? element_count(inputs)
               : 0u;
}

pk_status pock_info_get(pock_model *model, pock_info *info)
{
    if (model == NULL || info == NULL || model->manifest.view.data == NULL) {
        return PK_E_ARGUMENT;
    }
    const manifest *m = &model->manifest;
    memset(info, 0, sizeof *info);
    info->memory.state_bytes = m->state_bytes;
    info->memory.arena_bytes = m->arena_bytes;
    info->memory.frozen_bytes = m->frozen_bytes;
    info->memory.total_bytes = m->state_bytes + m->arena_bytes;
    info->available_bytes = available_bytes();
    info->seed = m->seed;
    info->learning_rate = (float)m->learning_rate;
    info->batch_rows = (uint32_t)m->batch_rows;
    info->micro_batches = (uint32_t)m->micro_batches;
    info->class_count = element_count(m->class_names);
    info->input_count = input_count(m);
    info->producer = m->producer;
    info->target = m->target;
    info->arch = m->arch;
    if (model->context != NULL) {
        info->threads = model->core.threads(model->context);
        (void)model->core.memory_used(model->context, &info->memory);
        (void)model->core.progress_get(model->context, &info->step, &info->seed);
    }
    return PK_OK;
}

const char *pock_class_name(pock_model *model, uint32_t number)
{
    json key = {NULL, NULL};
    json value = {NULL, NULL};
    if (model == NULL || model->manifest.view.data == NULL) {
        return NULL;
    }
    json_walk walk = json_members(model->manifest.class_names);
    for (uint32_t i = 0; json_next(&walk, &key, &value); i++) {
        if (i == number) {
            const bool fits = json_string(value, model->class_name, sizeof model->class_name);
            return fits ? model->class_name : NULL;
        }
    }
    return NULL;
}

pk_context *pock_context(pock_model *model)
{
    return model == NULL ? NULL : model->context;
}

void *pock_symbol(pock_model *model, const char *name)
{
    return model == NULL || name == NULL ? NULL : core_symbol(&model->core, name);
}

pk_status pock_input_at(pock_model *model, const char *entry, uint32_t number, pock_input *input)
{
    const pk_status status = model_check_open(model);
    if (status != PK_OK || entry == NULL || input == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    for (int i = 0; i < ENTRY_KINDS; i++) {
        const entry_spec *e = &model->entries[i];
        if (strcmp(entry, ENTRY_NAMES[i]) == 0 && e->present && number < e->input_count) {
            const port_spec *spec = &e->input_specs[number];
            *input = (pock_input){e->inputs[number], spec->batched, spec->ranged, spec->low,
                                  spec->high};
            return PK_OK;
        }
    }
    return PK_E_NOT_FOUND;
}

pk_status pock_output_at(pock_model *model, const char *entry, uint32_t number,
                         const pk_tensor **tensor)
{
    const pk_status status = model_check_open(model);
    if (status != PK_OK || entry == NULL || tensor == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    for (int i = 0; i < ENTRY_KINDS; i++) {
        const entry_spec *e = &model->entries[i];
        if (strcmp(entry, ENTRY_NAMES[i]) == 0 && e->present && number < e->output_count) {
            *tensor = e->outputs[number];
            return PK_OK;
        }
    }
    return PK_E_NOT_FOUND;
}

pk_status pock_set_seed(pock_model *model, int64_t seed)
{
    uint64_t step = 0;
    int64_t before = 0;
    const pk_status status = model_check_open(model);
    if (status != PK_OK) {
        return status;
    }
    (void)model->core.progress_get(model->context, &step, &before);
    return model_core_status(model, model->core.progress_set(model->context, step, seed));
}
