#define _GNU_SOURCE
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "paths.h"

static volatile sig_atomic_t caught;

static void on_signal(int number)
{
    caught = number;
}

/* The second one of its kind ends the process at once, as it does without a handler. */
static void catch_signals(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = (int)SA_RESETHAND;
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

typedef struct arguments {
    const char *artifact;
    const char *data;
    const char *evaluation;
    const char *schedule;
    const char *checkpoint;
    const char *save;
    uint64_t epochs;
    uint64_t warmup;
    uint64_t eval_every;
    uint64_t early_stop;
    uint64_t checkpoint_every;
    double checkpoint_minutes;
    double lr;
    double final_lr;
    int64_t seed;
    uint64_t threads;
    bool no_shuffle;
    bool resume;
    bool no_save;
    bool log_json;
    bool no_verify;
    uint64_t profile_steps;
    profiling profiled;
} arguments;

/* What is shown while it runs. */
typedef struct display {
    bool json;
    bool terminal;
    bool drawn; /* a progress line is on the terminal */
    double mean;
    uint64_t begin_ns;
    uint64_t epoch_ns;
    uint64_t drawn_ns;
    uint64_t steps;
    pock_profile *profile;
} display;

static void clear_line(display *d)
{
    if (d->drawn) {
        (void)fprintf(stderr, "\r\033[K");
        d->drawn = false;
    }
}

static void draw(display *d, const pock_report *r)
{
    const uint64_t now = now_ns();
    d->mean = d->steps == 1u ? r->loss : d->mean + 0.05 * (r->loss - d->mean);
    if (!d->terminal || (now - d->drawn_ns < UINT64_C(100000000) && r->done != r->total)) {
        return;
    }
    const double seconds = (double)(now - d->begin_ns) / 1e9;
    const double left = seconds / (double)d->steps * (double)(r->total - r->done);
    (void)fprintf(stderr,
                  "\r\033[Kepoch %" PRIu32 "  step %" PRIu64 "/%" PRIu64
                  "  loss %.4f  %.3g ms/step  %.0f s left",
                  r->epoch, r->done, r->total, d->mean, (double)r->step_ns / 1e6, left);
    (void)fflush(stderr);
    d->drawn = true;
    d->drawn_ns = now;
}

static void log_event(const pock_report *r)
{
    static const char *const names[] = {"step",       "epoch",   "evaluation",
                                        "checkpoint", "resumed", "early_stop"};
    json_begin(names[r->event]);
    json_count("epoch", r->epoch);
    json_count("step", r->step);
    json_count("done", r->done);
    json_count("total", r->total);
    if (r->event == POCK_STEP || r->event == POCK_EPOCH) {
        json_number("loss", r->loss);
        json_number("step_ms", (double)r->step_ns / 1e6);
    }
    if (r->event == POCK_STEP) {
        json_number("lr", r->lr);
    }
    if (r->event == POCK_EVALUATION) {
        json_number("loss", r->figures.loss);
        json_number("accuracy", r->figures.accuracy);
        json_count("samples", r->figures.samples);
    }
    json_end();
}

static void say_event(display *d, const pock_report *r)
{
    if (r->event == POCK_STEP) {
        draw(d, r);
        return;
    }
    clear_line(d);
    if (r->event == POCK_EPOCH) {
        const uint64_t now = now_ns();
        (void)printf("epoch %-2" PRIu32 " loss %.4f, %.3g ms/step, %.1f s\n", r->epoch, r->loss,
                     (double)r->step_ns / 1e6, (double)(now - d->epoch_ns) / 1e9);
        d->epoch_ns = now;
    } else if (r->event == POCK_EVALUATION) {
        (void)printf("eval     %s\n", figures_text(&r->figures));
    } else if (r->event == POCK_RESUMED) {
        (void)printf("resumed  after %" PRIu64 " of %" PRIu64 " steps\n", r->done, r->total);
    } else if (r->event == POCK_EARLY_STOP) {
        (void)printf("stopped  early: the evaluation has not become better than loss %.4f\n",
                     r->loss);
    }
    (void)fflush(stdout);
}

static int on_report(void *user, const pock_report *r)
{
    display *d = user;
    d->steps += r->event == POCK_STEP ? 1u : 0u;
    if (r->event == POCK_STEP) {
        pock_profile_step(d->profile, r->step_ns);
    } else {
        (void)private_bytes(); /* after an epoch, an evaluation, a checkpoint */
    }
    if (d->json) {
        log_event(r);
    } else {
        say_event(d, r);
    }
    return caught != 0;
}

static bool read_schedule(const char *text, pock_schedule *schedule)
{
    static const char *const names[] = {"constant", "linear", "cosine"};
    for (int i = 0; i < 3; i++) {
        if (strcmp(text, names[i]) == 0) {
            *schedule = (pock_schedule)i;
            return true;
        }
    }
    (void)fprintf(stderr, "[train-option] there is no schedule '%s'\n    fix  choose from: constant, "
                          "linear, cosine\n",
                  text);
    return false;
}

static bool read_arguments(int argc, char **argv, arguments *a)
{
    const option options[] = {
        {"--data", OPTION_TEXT, &a->data, 0},
        {"--eval", OPTION_TEXT, &a->evaluation, 0},
        {"--eval-every", OPTION_COUNT, &a->eval_every, 1},
        {"--early-stop", OPTION_COUNT, &a->early_stop, 1},
        {"--epochs", OPTION_COUNT, &a->epochs, 1},
        {"--lr", OPTION_NUMBER, &a->lr, 0},
        {"--schedule", OPTION_TEXT, &a->schedule, 0},
        {"--warmup", OPTION_COUNT, &a->warmup, 0},
        {"--final-lr", OPTION_NUMBER, &a->final_lr, 0},
        {"--seed", OPTION_INT, &a->seed, 0},
        {"--no-shuffle", OPTION_FLAG, &a->no_shuffle, 0},
        {"--checkpoint", OPTION_TEXT, &a->checkpoint, 0},
        {"--checkpoint-every", OPTION_COUNT, &a->checkpoint_every, 1},
        {"--checkpoint-minutes", OPTION_NUMBER, &a->checkpoint_minutes, 0},
        {"--resume", OPTION_FLAG, &a->resume, 0},
        {"--save", OPTION_TEXT, &a->save, 0},
        {"-o", OPTION_TEXT, &a->save, 0},
        {"--no-save", OPTION_FLAG, &a->no_save, 0},
        {"--threads", OPTION_COUNT, &a->threads, 1},
        {"--log-json", OPTION_FLAG, &a->log_json, 0},
        {"--no-verify", OPTION_FLAG, &a->no_verify, 0},
        {"--profile", OPTION_TEXT, &a->profiled.path, 0},
        {"--profile-steps", OPTION_COUNT, &a->profile_steps, 1},
    };
    if (!read_options(argc, argv, options, sizeof options / sizeof options[0], &a->artifact)) {
        return false;
    }
    if (a->data == NULL) {
        (void)fprintf(stderr, "[usage] no data was given\n    fix  --data train.npz\n");
        return false;
    }
    if (a->epochs > UINT32_MAX || a->early_stop > UINT32_MAX) {
        (void)fprintf(stderr, "[usage] a number is too large\n    fix  give a smaller one\n");
        return false;
    }
    return true;
}

static bool check_targets(const arguments *a)
{
    const char *save = a->save == NULL ? a->artifact : a->save;
    return (a->no_save || check_writable(save)) &&
           (a->profiled.path == NULL || check_writable(a->profiled.path)) &&
           (a->checkpoint == NULL || check_writable(a->checkpoint));
}

static int conclude(pock_model *model, const arguments *a, const display *d)
{
    const char *save = a->save == NULL ? a->artifact : a->save;
    pock_info info;
    (void)pock_info_get(model, &info);
    if (a->log_json) {
        json_begin("done");
        json_count("steps", d->steps);
        json_number("seconds", (double)(now_ns() - d->begin_ns) / 1e9);
        json_count("planned_bytes", info.memory.total_bytes);
        json_count("frozen_bytes", info.memory.frozen_bytes);
        json_count("private_bytes", private_bytes());
        json_count("peak_bytes", peak_bytes());
        json_end();
    } else {
        (void)printf("done     %" PRIu64 " steps in %.1f s\n", d->steps,
                     (double)(now_ns() - d->begin_ns) / 1e9);
        (void)printf("memory   %s planned (state %s, arena %s, runtime %s), %s frozen; the process "
                     "took %s of its own, %s at the peak with what it maps\n",
                     size_text(info.memory.total_bytes), size_text(info.memory.state_bytes),
                     size_text(info.memory.arena_bytes), size_text(info.memory.runtime_bytes),
                     size_text(info.memory.frozen_bytes), size_text(private_bytes()),
                     size_text(peak_bytes()));
    }
    if (a->no_save) {
        return 0;
    }
    const size_t length = strlen(save);
    const bool weights = length > 12u && strcmp(save + length - 12u, ".safetensors") == 0;
    if ((weights ? pock_export(model, save) : pock_save(model, save)) != PK_OK) {
        return fail(model, a->log_json);
    }
    if (a->log_json) {
        json_begin("saved");
        json_text("path", save);
        json_count("private_bytes", private_bytes());
        json_end();
    } else {
        (void)printf("saved    %s\n", save);
    }
    return 0;
}

static int run(pock_model *model, pock_data *data, arguments *a, pock_train_options *options)
{
    pock_info info;
    display d = {.json = a->log_json, .terminal = isatty(STDERR_FILENO) != 0 && !a->log_json};
    (void)pock_info_get(model, &info);
    if (a->log_json) {
        json_begin("start");
        json_count("rows", pock_data_rows(data));
        json_count("batch_rows", info.batch_rows);
        json_count("threads", info.threads);
        json_count("planned_bytes", info.memory.total_bytes);
        json_end();
    } else {
        (void)printf("training %s: %" PRIu64 " samples, batches of %u, %u threads\n", a->artifact,
                     pock_data_rows(data), info.batch_rows, info.threads);
    }
    d.profile = a->profiled.profile;
    options->on_report = on_report;
    options->user = &d;
    d.begin_ns = d.epoch_ns = now_ns();
    catch_signals();
    const pk_status status = pock_train(model, data, options);
    clear_line(&d);
    if (status == PK_OK) {
        const int concluded = conclude(model, a, &d);
        const pk_status written = profiling_write(&a->profiled, model, 0);
        return written == PK_OK ? concluded : fail(model, a->log_json);
    }
    const int failed = fail(model, a->log_json);
    return status == PK_E_STOPPED ? EXIT_SIGNALLED + (int)caught : failed;
}

static void fill_options(const arguments *a, pock_train_options *o)
{
    o->epochs = (uint32_t)a->epochs;
    o->shuffle = !a->no_shuffle;
    o->seed = a->seed == INT64_MIN ? 0 : a->seed;
    o->lr = a->lr;
    o->resume = a->resume;
    o->warmup_steps = a->warmup;
    o->final_lr = a->final_lr;
    o->eval_steps = a->eval_every;
    o->early_stop = (uint32_t)a->early_stop;
    o->checkpoint_steps = a->checkpoint_every;
    o->checkpoint_minutes = a->checkpoint_minutes;
}

int run_train(int argc, char **argv)
{
    arguments a = {.schedule = "constant", .epochs = 1, .lr = -1.0, .seed = INT64_MIN, .profile_steps = 50};
    pock_train_options options;
    pock_data *data = NULL;
    char checkpoint[4096];
    pock_train_defaults(&options);
    if (!read_arguments(argc, argv, &a) || !read_schedule(a.schedule, &options.schedule)) {
        return EXIT_USAGE;
    }
    fill_options(&a, &options);
    if (!check_targets(&a)) {
        return EXIT_ERROR;
    }
    if (a.checkpoint != NULL) {
        if (!checkpoint_file(a.checkpoint, true, checkpoint, sizeof checkpoint)) {
            return EXIT_ERROR;
        }
        options.checkpoint = checkpoint;
    }
    profiling_before(&a.profiled);
    pock_model *model = open_model(a.artifact, a.threads, a.no_verify ? POCK_UNVERIFIED : 0u);
    if (model == NULL) {
        return EXIT_ERROR;
    }
    int result = EXIT_ERROR;
    if (profiling_begin(&a.profiled, model, a.profile_steps) != PK_OK ||
        (a.seed != INT64_MIN && pock_set_seed(model, a.seed) != PK_OK) ||
        pock_data_open(model, "train_step", a.data, &data) != PK_OK ||
        (a.evaluation != NULL &&
         pock_data_open(model, "evaluate", a.evaluation, &options.evaluation) != PK_OK)) {
        result = fail(model, a.log_json);
    } else {
        result = run(model, data, &a, &options);
    }
    pock_profile_end(a.profiled.profile);
    pock_data_close(data);
    pock_data_close(options.evaluation);
    pock_close(model);
    return result;
}
