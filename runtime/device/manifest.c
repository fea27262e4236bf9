#define _GNU_SOURCE
#include "manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

static const char again[] = "copy the folder again, or compile the model again";
static const char compiled[] = "give a folder that `pockc compile` or `artifact.save` wrote";
static const char other_machine[] = "compile the model for this machine: --target";

/* The digest is that of the text without the line that holds it. */
static bool digest_right(const manifest *m)
{
#if defined(FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION)
    return true; /* or nothing behind it would ever be reached */
#endif
    json key = {NULL, NULL};
    json value = {NULL, NULL};
    json_walk walk = json_members(m->root);
    while (json_next(&walk, &key, &value)) {
        if (!json_equals(key, "digest")) {
            continue;
        }
        char digits[SHA256_DIGITS + 1];
        sha256 hash;
        const char *text = (const char *)m->view.data;
        sha256_begin(&hash);
        sha256_add(&hash, text, (size_t)(key.begin - text));
        sha256_add(&hash, walk.at, (size_t)(text + m->view.size - walk.at));
        sha256_end(&hash, digits);
        return json_equals(value, digits);
    }
    return false;
}

static bool read_numbers(manifest *m)
{
    json memory = {NULL, NULL};
    json value = {NULL, NULL};
    bool good = json_find(m->root, "memory", &memory);
    good = good && json_find(memory, "state_bytes", &value) && json_u64(value, &m->state_bytes);
    good = good && json_find(memory, "arena_bytes", &value) && json_u64(value, &m->arena_bytes);
    good = good && json_find(memory, "frozen_bytes", &value) && json_u64(value, &m->frozen_bytes);
    good = good && json_find(m->root, "batch_rows", &value) && json_u64(value, &m->batch_rows);
    good = good && json_find(m->root, "micro_batches", &value) &&
           json_u64(value, &m->micro_batches) && m->micro_batches > 0u;
    good = good && json_find(m->root, "seed", &value) && json_i64(value, &m->seed);
    good = good && json_find(m->root, "learning_rate", &value) &&
           json_double(value, &m->learning_rate);
    return good && m->batch_rows > 0u && m->batch_rows <= UINT32_MAX &&
           m->micro_batches <= UINT32_MAX;
}

static bool read_parts(manifest *m)
{
    json value = {NULL, NULL};
    bool good = json_find(m->root, "machine", &m->machine);
    good = good && json_find(m->root, "files", &m->files) && json_is_object(m->files);
    good = good && json_find(m->root, "entries", &m->entries);
    good = good && json_find(m->root, "tensors", &m->tensors);
    good = good && json_find(m->root, "aliases", &m->aliases);
    good = good && json_find(m->root, "class_names", &m->class_names);
    good = good && json_find(m->root, "producer", &value) &&
           json_string(value, m->producer, sizeof m->producer);
    good = good && json_find(m->machine, "target", &value) &&
           json_string(value, m->target, sizeof m->target);
    good = good && json_find(m->machine, "arch", &value) &&
           json_string(value, m->arch, sizeof m->arch);
    return good && read_numbers(m);
}

static pk_status check_format(const manifest *m, const char *folder, pock_error *error)
{
    json value = {NULL, NULL};
    uint64_t version = 0;
    if (!json_find(m->root, "format", &value) || !json_equals(value, "pock-artifact")) {
        return pock_fail(error, PK_E_NO_ARTIFACT, "foreign-folder", compiled,
                         "%s is no artifact: its manifest.json is another program's", folder);
    }
    if (!json_find(m->root, "format_version", &value) || !json_u64(value, &version) ||
        version != POCK_FORMAT_VERSION) {
        const bool newer = version > POCK_FORMAT_VERSION;
        return pock_fail(error, PK_E_VERSION, "artifact-version",
                         newer ? "install a newer runtime" : "compile the model again",
                         "%s has format version %" PRIu64 ", this runtime reads version %d", folder,
                         version, POCK_FORMAT_VERSION);
    }
    return PK_OK;
}

static pk_status damaged(pock_error *error, const char *path, const char *why)
{
    return pock_fail(error, PK_E_DAMAGED, "damaged-file", again, "%s is damaged: %s", path, why);
}

static pk_status cannot_open(const char *folder, const char *path, pock_error *error)
{
    const int reason = errno;
    struct stat info;
    if (stat(folder, &info) != 0) {
        return pock_fail(error, PK_E_NO_ARTIFACT, "no-artifact", compiled, "there is no %s", folder);
    }
    if (reason == ENOENT || reason == ENOTDIR) {
        return pock_fail(error, PK_E_NO_ARTIFACT, "foreign-folder", compiled,
                         "%s is no artifact: it has no manifest.json", folder);
    }
    return damaged(error, path, strerror(reason));
}

pk_status manifest_open(manifest *m, const char *folder, pock_error *error)
{
    char path[POCK_PATH_BYTES];
    memset(m, 0, sizeof *m);
    if (!path_join(path, folder, "manifest.json")) {
        errno = ENAMETOOLONG;
        return cannot_open(folder, "manifest.json", error);
    }
    return view_open(&m->view, path) ? manifest_parse(m, folder, error)
                                     : cannot_open(folder, path, error);
}

pk_status manifest_parse(manifest *m, const char *folder, pock_error *error)
{
    char path[POCK_PATH_BYTES];
    if (!path_join(path, folder, "manifest.json")) {
        return PK_E_ARGUMENT;
    }
    if (!json_check((const char *)m->view.data, (size_t)m->view.size, &m->root) ||
        !json_is_object(m->root)) {
        return damaged(error, path, "it is no JSON object");
    }
    const pk_status status = check_format(m, folder, error);
    if (status != PK_OK) {
        return status;
    }
    if (!digest_right(m)) {
        return damaged(error, path, "its content does not match its own hash");
    }
    return read_parts(m) ? PK_OK : damaged(error, path, "it lacks what this runtime needs");
}

void manifest_close(manifest *m)
{
    view_close(&m->view);
}

/* Whether a list of words, as the system names what a processor can do, has one of them. */
static bool has_word(const char *words, const char *word)
{
    const size_t length = strlen(word);
    for (const char *at = strstr(words, word); at != NULL; at = strstr(at + 1, word)) {
        const bool begins = at == words || at[-1] == ' ' || at[-1] == '\t' || at[-1] == ':';
        if (begins && (at[length] == ' ' || at[length] == '\n' || at[length] == '\0')) {
            return true;
        }
    }
    return false;
}

/* What the first processor can do; NULL if the system does not tell. */
static char *processor_features(char *buffer, size_t capacity)
{
    const int file = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
    size_t used = 0;
    ssize_t got = 1;
    while (file >= 0 && got > 0 && used + 1u < capacity) {
        got = read(file, buffer + used, capacity - 1u - used);
        used += got > 0 ? (size_t)got : 0u;
    }
    if (file >= 0) {
        (void)close(file);
    }
    buffer[used] = '\0';
    /* An emulator shows the file of the machine that it runs on, which says nothing of its own. */
#if defined(__x86_64__)
    char *line = strstr(buffer, "\nflags");
#else
    char *line = strstr(buffer, "\nFeatures");
#endif
    if (line == NULL) {
        return NULL;
    }
    char *end = strchr(line + 1, '\n');
    if (end != NULL) {
        *end = '\0';
    }
    return strchr(line, ':');
}

/* The instruction set of this program: a 64-bit system of Arm also runs those of 32 bits. */
static const char *instruction_set(const struct utsname *here)
{
#if defined(__arm__)
    return strcmp(here->machine, "aarch64") == 0 || strcmp(here->machine, "armv8l") == 0
               ? "armv7l"
               : here->machine;
#else
    return here->machine;
#endif
}

pk_status manifest_check_machine(const manifest *m, const char *folder, pock_error *error,
                                 uint8_t buffer[POCK_BUFFER_BYTES])
{
    struct utsname here;
    json value = {NULL, NULL};
    json features = {NULL, NULL};
    json unused = {NULL, NULL};
    if (uname(&here) == 0 && (strcmp(instruction_set(&here), m->arch) != 0 ||
                              !json_find(m->machine, "system", &value) ||
                              !json_equals(value, "linux"))) {
        return pock_fail(error, PK_E_TARGET, "artifact-target", other_machine,
                         "%s was compiled for target '%s' (%s), this is %s, linux", folder,
                         m->target, m->arch, instruction_set(&here));
    }
    const char *present = processor_features((char *)buffer, POCK_BUFFER_BYTES);
    if (present == NULL || !json_find(m->machine, "features", &features)) {
        return PK_OK;
    }
    char lacking[256] = "";
    json_walk walk = json_members(features);
    while (json_next(&walk, &unused, &value)) {
        char word[64];
        if (json_string(value, word, sizeof word) && !has_word(present, word)) {
            const size_t used = strlen(lacking);
            (void)snprintf(lacking + used, sizeof lacking - used, "%s%s", used > 0u ? ", " : "",
                           word);
        }
    }
    if (lacking[0] == '\0') {
        return PK_OK;
    }
    return pock_fail(error, PK_E_TARGET, "artifact-target", other_machine,
                     "%s was compiled for target '%s', whose code needs what this processor "
                     "lacks: %s",
                     folder, m->target, lacking);
}

static pk_status check_file(json spec, const char *folder, const char *name, bool unverified,
                            pock_error *error, uint8_t buffer[POCK_BUFFER_BYTES])
{
    char path[POCK_PATH_BYTES];
    char digits[SHA256_DIGITS + 1];
    char why[128];
    json value = {NULL, NULL};
    uint64_t size = 0;
    struct stat info;
    if (!path_join(path, folder, name) || stat(path, &info) != 0 || !S_ISREG(info.st_mode)) {
        return pock_fail(error, PK_E_DAMAGED, "missing-file", "copy the whole folder again",
                         "%s lacks its file %s", folder, name);
    }
    if (!json_find(spec, "nbytes", &value) || !json_u64(value, &size) ||
        (uint64_t)info.st_size != size) {
        (void)snprintf(why, sizeof why, "it has %" PRIu64 " bytes, %" PRIu64 " were written",
                       (uint64_t)info.st_size, size);
        return damaged(error, path, why);
    }
    if (unverified) {
        return PK_OK;
    }
    if (!hash_file(path, buffer, digits)) {
        return damaged(error, path, strerror(errno));
    }
    if (!json_find(spec, "sha256", &value) || !json_equals(value, digits)) {
        return damaged(error, path, "its SHA-256 is not the one in the manifest");
    }
    return PK_OK;
}

pk_status manifest_check_files(const manifest *m, const char *folder, bool unverified,
                               pock_error *error, uint8_t buffer[POCK_BUFFER_BYTES])
{
    static const char *const needed[] = {
#if !defined(POCK_STATIC)
        "step.so",
#endif
        "state.safetensors", "frozen.safetensors"};
    json key = {NULL, NULL};
    json value = {NULL, NULL};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (!json_find(m->files, needed[i], &value)) {
            return pock_fail(error, PK_E_DAMAGED, "missing-file", again,
                             "the manifest of %s does not name %s", folder, needed[i]);
        }
    }
    json_walk walk = json_members(m->files);
    while (json_next(&walk, &key, &value)) {
        char name[256];
        if (!json_string(key, name, sizeof name) || strchr(name, '/') != NULL) {
            return damaged(error, folder, "its manifest names a file outside it");
        }
#if defined(POCK_STATIC)
        /* The program is part of this one; its library need not be there. */
        if (strcmp(name, "step.so") == 0) {
            continue;
        }
#endif
        const pk_status status = check_file(value, folder, name, unverified, error, buffer);
        if (status != PK_OK) {
            return status;
        }
    }
    return PK_OK;
}

bool manifest_hash_of(const manifest *m, const char *file, char digits[SHA256_DIGITS + 1])
{
    json spec = {NULL, NULL};
    json value = {NULL, NULL};
    return json_find(m->files, file, &spec) && json_find(spec, "sha256", &value) &&
           json_string(value, digits, SHA256_DIGITS + 1);
}

uint64_t manifest_steps(const manifest *m, const char *entry)
{
    json found = {NULL, NULL};
    json value = {NULL, NULL};
    uint64_t steps = 0;
    return json_find(m->entries, entry, &found) && json_find(found, "steps", &value) &&
                   json_u64(value, &steps)
               ? steps
               : 0u;
}

static bool read_range(json values, port_spec *spec)
{
    json value = {NULL, NULL};
    spec->ranged = true;
    if (!json_find(values, "low", &value) || !json_i64(value, &spec->low) ||
        !json_find(values, "high", &value) || !json_i64(value, &spec->high) ||
        !json_find(values, "meaning", &value) ||
        !json_string(value, spec->meaning, sizeof spec->meaning)) {
        return false;
    }
    if (json_find(values, "ignore", &value) && !json_is_null(value)) {
        spec->has_ignore = json_i64(value, &spec->ignore);
        return spec->has_ignore;
    }
    return true;
}

bool manifest_port(const manifest *m, const char *entry, const char *side, uint32_t number,
                   port_spec *spec)
{
    json found = {NULL, NULL};
    json ports = {NULL, NULL};
    json port = {NULL, NULL};
    json value = {NULL, NULL};
    memset(spec, 0, sizeof *spec);
    if (!json_find(m->entries, entry, &found) || !json_find(found, side, &ports)) {
        return false;
    }
    json_walk walk = json_members(ports);
    for (uint32_t i = 0; i <= number; i++) {
        if (!json_next(&walk, &value, &port)) {
            return false;
        }
    }
    if (!json_find(port, "batched", &value) || !json_bool(value, &spec->batched)) {
        return false;
    }
    return !json_find(port, "values", &value) || json_is_null(value) || read_range(value, spec);
}

void manifest_canonical(const manifest *m, json name, char *kept, size_t capacity)
{
    json value = {NULL, NULL};
    if (!json_string(name, kept, capacity)) {
        kept[0] = '\0';
    } else if (json_find(m->aliases, kept, &value) && !json_string(value, kept, capacity)) {
        kept[0] = '\0';
    }
}

bool manifest_in_state_dict(const manifest *m, const char *name)
{
    json spec = {NULL, NULL};
    json value = {NULL, NULL};
    bool persistent = false;
    return json_find(m->tensors, name, &spec) && json_find(spec, "persistent", &value) &&
           json_bool(value, &persistent) && persistent && json_find(spec, "kind", &value) &&
           !json_equals(value, "opt_state");
}
