#define _GNU_SOURCE
#include "core.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static pk_status check_abi(const core *c, const char *path, pock_error *error)
{
    const uint32_t found = c->abi_version();
    if (found == PK_ABI_VERSION) {
        return PK_OK;
    }
    return pock_fail(error, PK_E_VERSION, "library-abi",
                     "compile the model again, or install the runtime that belongs to it",
                     "%s speaks version %u of the runtime's interface, this runtime speaks %u",
                     path, found, PK_ABI_VERSION);
}

#if defined(POCK_STATIC)

pk_status core_load(core *c, const char *path, pock_error *error)
{
#define POCK_CORE_TAKE(name, result, parameters) c->name = pk_##name;
    POCK_CORE_FUNCTIONS(POCK_CORE_TAKE)
    c->library = NULL;
    c->file = -1;
    return check_abi(c, path, error);
}

void core_unload(core *c)
{
    (void)c;
}

void *core_symbol(const core *c, const char *name)
{
    (void)c;
    (void)name;
    return NULL;
}

#else

#include <dlfcn.h>

void *core_symbol(const core *c, const char *name)
{
    return c->library == NULL ? NULL : dlsym(c->library, name);
}

static bool find(const core *c, const char *name, void *function)
{
    void *found = core_symbol(c, name);
    memcpy(function, &found, sizeof found); /* ISO C has no cast from data to functions */
    return found != NULL;
}

/* The loader takes a library for loaded if its name is, even when the file has been replaced. A
 * descriptor that stays open is a name that no other library has. */
static void *load(core *c, const char *path)
{
    char name[64];
    c->file = open(path, O_RDONLY | O_CLOEXEC);
    (void)snprintf(name, sizeof name, "/proc/self/fd/%d", c->file);
    if (c->file >= 0 && access(name, F_OK) == 0) {
        return dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

pk_status core_load(core *c, const char *path, pock_error *error)
{
    bool complete = true;
    c->library = load(c, path);
    if (c->library == NULL) {
        const char *why = dlerror();
        return pock_fail(error, PK_E_LIBRARY, "library-load",
                         "compile the model for this machine: --target",
                         "the system does not load %s: %s", path,
                         why == NULL ? "no reason was given" : why);
    }
    complete = find(c, "pk_abi_version", &c->abi_version);
    const pk_status status = complete ? check_abi(c, path, error) : PK_OK;
    if (status != PK_OK) {
        return status;
    }
#define POCK_CORE_FIND(name, result, parameters) complete = find(c, "pk_" #name, &c->name) && complete;
    POCK_CORE_FUNCTIONS(POCK_CORE_FIND)
    if (!complete) {
        return pock_fail(error, PK_E_LIBRARY, "library-load", "compile the model again",
                         "%s lacks functions of the runtime", path);
    }
    return PK_OK;
}

void core_unload(core *c)
{
    if (c->library != NULL) {
        (void)dlclose(c->library);
        c->library = NULL;
    }
    if (c->file >= 0) {
        (void)close(c->file);
        c->file = -1;
    }
}

#endif
