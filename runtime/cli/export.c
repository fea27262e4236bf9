#include <stdio.h>

#include "cli.h"
#include "paths.h"

int run_export(int argc, char **argv)
{
    const char *artifact = NULL;
    const char *to = NULL;
    const char *checkpoint = NULL;
    char path[4096];
    const option options[] = {{"--to", OPTION_TEXT, &to, 0},
                              {"--checkpoint", OPTION_TEXT, &checkpoint, 0}};
    if (!read_options(argc, argv, options, sizeof options / sizeof options[0], &artifact)) {
        return EXIT_USAGE;
    }
    if (to == NULL) {
        (void)fprintf(stderr, "[usage] no file was given\n    fix  --to tuned.safetensors\n");
        return EXIT_USAGE;
    }
    if (!check_writable(to) ||
        (checkpoint != NULL && !checkpoint_file(checkpoint, false, path, sizeof path))) {
        return EXIT_ERROR;
    }
    pock_model *model = open_model(artifact, 1, 0);
    if (model == NULL) {
        return EXIT_ERROR;
    }
    int result = 0;
    if ((checkpoint != NULL && pock_load_checkpoint(model, path) != PK_OK) ||
        pock_export(model, to) != PK_OK) {
        result = fail(model, false);
    } else {
        (void)printf("wrote    %s\n", to);
    }
    pock_close(model);
    return result;
}
