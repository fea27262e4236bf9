#include <inttypes.h>
#include <stdio.h>

#include "cli.h"

static void print_json(const pock_info *info, bool fits)
{
    json_begin("info");
    json_text("producer", info->producer);
    json_text("target", info->target);
    json_text("arch", info->arch);
    json_count("batch_rows", info->batch_rows);
    json_count("micro_batches", info->micro_batches);
    json_count("step", info->step);
    json_number("learning_rate", (double)info->learning_rate);
    json_count("class_count", info->class_count);
    json_count("state_bytes", info->memory.state_bytes);
    json_count("arena_bytes", info->memory.arena_bytes);
    json_count("runtime_bytes", info->memory.runtime_bytes);
    json_count("private_bytes", info->memory.total_bytes);
    json_count("frozen_bytes", info->memory.frozen_bytes);
    if (info->available_bytes != UINT64_MAX) {
        json_count("available_bytes", info->available_bytes);
    }
    json_count("threads", info->threads);
    (void)printf(",\"fits\":%s", fits ? "true" : "false");
    json_end();
}

static void print_text(pock_model *model, const pock_info *info, const char *artifact)
{
    const pk_memory *m = &info->memory;
    (void)printf("artifact  %s, made by %s for %s (%s)\n", artifact, info->producer, info->target,
                 info->arch);
    (void)printf("batch     %u rows", info->batch_rows);
    if (info->micro_batches > 1u) {
        (void)printf(" in %u parts", info->micro_batches);
    }
    (void)printf("\n");
    pock_input input;
    for (uint32_t i = 0; pock_input_at(model, "train_step", i, &input) == PK_OK; i++) {
        (void)printf("%s%s [", i == 0u ? "inputs    " : ", ", input.tensor->name);
        for (uint32_t d = 0; d < input.tensor->rank; d++) {
            (void)printf("%s%" PRId64, d > 0u ? "," : "", input.tensor->shape[d]);
        }
        (void)printf("]");
    }
    (void)printf("%strained   %" PRIu64 " steps so far, learning rate %g\n",
                 pock_context(model) == NULL ? "" : "\n", info->step, (double)info->learning_rate);
    (void)printf("memory    %s private: state %s, arena %s, runtime %s\n", size_text(m->total_bytes),
                 size_text(m->state_bytes), size_text(m->arena_bytes), size_text(m->runtime_bytes));
    (void)printf("          %s frozen, mapped from the file: loaded where it is read\n",
                 size_text(m->frozen_bytes));
    if (info->available_bytes != UINT64_MAX) {
        (void)printf("          %s are free now\n", size_text(info->available_bytes));
    }
    if (info->threads > 0u) {
        (void)printf("threads   %u\n", info->threads);
    }
}

/* The model is opened as for a run, so that all is checked; if that fails, what its manifest says
 * is shown all the same. */
int run_info(int argc, char **argv)
{
    const char *artifact = NULL;
    uint64_t threads = 0;
    bool json = false;
    const option options[] = {{"--threads", OPTION_COUNT, &threads, 1},
                              {"--json", OPTION_FLAG, &json, 0}};
    if (!read_options(argc, argv, options, sizeof options / sizeof options[0], &artifact)) {
        return EXIT_USAGE;
    }
    pock_model *model = open_model(artifact, threads, 0);
    const bool fits = model != NULL;
    const pock_open_options manifest = {0, POCK_MANIFEST_ONLY};
    if (!fits && pock_open(artifact, &manifest, &model) != PK_OK) {
        pock_close(model); /* its message was printed already */
        return EXIT_ERROR;
    }
    pock_info info;
    if (pock_info_get(model, &info) == PK_OK) {
        if (json) {
            print_json(&info, fits);
        } else {
            print_text(model, &info, artifact);
        }
    }
    pock_close(model);
    return fits ? 0 : EXIT_ERROR;
}
