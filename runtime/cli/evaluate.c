#include <stdio.h>

#include "cli.h"

int run_eval(int argc, char **argv)
{
    const char *artifact = NULL;
    const char *path = NULL;
    uint64_t threads = 0;
    bool log_json = false;
    bool no_verify = false;
    const option options[] = {{"--data", OPTION_TEXT, &path, 0},
                              {"--threads", OPTION_COUNT, &threads, 1},
                              {"--log-json", OPTION_FLAG, &log_json, 0},
                              {"--no-verify", OPTION_FLAG, &no_verify, 0}};
    if (!read_options(argc, argv, options, sizeof options / sizeof options[0], &artifact)) {
        return EXIT_USAGE;
    }
    if (path == NULL) {
        (void)fprintf(stderr, "[usage] no data was given\n    fix  --data test.npz\n");
        return EXIT_USAGE;
    }
    pock_model *model = open_model(artifact, threads, no_verify ? POCK_UNVERIFIED : 0u);
    if (model == NULL) {
        return EXIT_ERROR;
    }
    pock_data *data = NULL;
    pock_figures figures;
    int result = 0;
    if (pock_data_open(model, "evaluate", path, &data) != PK_OK ||
        pock_evaluate(model, data, &figures) != PK_OK) {
        result = fail(model, log_json);
    } else if (log_json) {
        json_begin("evaluation");
        json_number("loss", figures.loss);
        json_number("accuracy", figures.accuracy);
        json_count("samples", figures.samples);
        json_end();
    } else {
        (void)printf("%s\n", figures_text(&figures));
    }
    pock_data_close(data);
    pock_close(model);
    return result;
}
