#define _GNU_SOURCE
#include "paths.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool ends_with(const char *text, const char *end)
{
    const size_t length = strlen(text);
    const size_t wanted = strlen(end);
    return length >= wanted && strcmp(text + length - wanted, end) == 0;
}

bool check_writable(const char *path)
{
    char copy[4096];
    if (snprintf(copy, sizeof copy, "%s", path) < (int)sizeof copy) {
        const char *folder = dirname(copy);
        if (access(folder, W_OK | X_OK) == 0) {
            return true;
        }
        if (errno == ENOENT) {
            (void)fprintf(stderr, "[no-folder] there is no folder %s to write %s to\n    fix  mkdir "
                                  "-p %s\n",
                          folder, path, folder);
            return false;
        }
    }
    (void)fprintf(stderr, "[write-failed] cannot write %s: %s\n    fix  choose another place: --save, "
                          "--checkpoint\n",
                  path, strerror(errno));
    return false;
}

bool checkpoint_file(const char *given, bool make_folder, char *path, size_t capacity)
{
    const bool file = ends_with(given, ".safetensors");
    const int length = file ? snprintf(path, capacity, "%s", given)
                            : snprintf(path, capacity, "%s/checkpoint.safetensors", given);
    if (length < 0 || (size_t)length >= capacity) {
        errno = ENAMETOOLONG;
    } else if (file || !make_folder || mkdir(given, 0755) == 0 || errno == EEXIST) {
        return true;
    }
    (void)fprintf(stderr, "[write-failed] cannot make the folder %s: %s\n    fix  choose another "
                          "place\n",
                  given, strerror(errno));
    return false;
}
