/* paths.h: where results go, checked before anything long runs. */
#ifndef POCK_CLI_PATHS_H
#define POCK_CLI_PATHS_H

#include <stdbool.h>
#include <stddef.h>

/* Whether the folder that a path lies in can be written; prints why not. */
bool check_writable(const char *path);
/* The checkpoint that `--checkpoint` names: the file itself, or one in a folder, which is made if
 * asked; prints why that fails. */
bool checkpoint_file(const char *given, bool make_folder, char *path, size_t capacity);

#endif
