#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

typedef struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} verb;

static const verb VERBS[] = {
    {"train", run_train,
     "pock-run train MODEL.pock --data TRAIN [options]\n"
     "\n"
     "Fine-tune a model; its weights are replaced by the trained ones.\n"
     "\n"
     "  --data FILE|DIR            .npz, .safetensors, or a folder of .npy or .bin files\n"
     "  --eval FILE|DIR            evaluate on it after each epoch\n"
     "  --eval-every N             evaluate every N steps instead\n"
     "  --early-stop N             stop after N evaluations without a better loss\n"
     "  --epochs N                 how often every row is seen (1)\n"
     "  --lr X                     peak learning rate (the one that was compiled in)\n"
     "  --schedule S               constant, linear or cosine (constant)\n"
     "  --warmup N                 steps in which the rate rises to its peak (0)\n"
     "  --final-lr X               share of the peak at which linear and cosine end (0)\n"
     "  --seed N                   of the shuffling and of dropout (0 and the artifact's)\n"
     "  --no-shuffle               take the rows as they come\n"
     "  --checkpoint DIR|FILE      write DIR/checkpoint.safetensors after each epoch\n"
     "  --checkpoint-every N       every N steps as well\n"
     "  --checkpoint-minutes M     every M minutes as well\n"
     "  --resume                   go on from the checkpoint, if there is one\n"
     "  --save TUNED.pock          where the trained model goes (MODEL.pock itself), or\n"
     "                             FILE.safetensors for the state_dict alone\n"
     "  --no-save                  keep only the checkpoint\n"
     "  --threads N                threads that run kernels (one per processor)\n"
     "  --log-json                 a JSON line for every event\n"
     "  --profile FILE.json        record where the time goes, for pockc profile --from FILE.json\n"
     "  --profile-steps N          so many steps behind the first one (50)\n"
     "  --no-verify                trust the files: do not compare them with their hashes\n"
     "\n"
     "SIGINT and SIGTERM finish the step, write the checkpoint and end with 128 + the signal.\n"
     "\n"
     "Example:\n"
     "  pock-run train model.pock --data train.npz --eval test.npz --epochs 3 --checkpoint run\n"},
    {"eval", run_eval,
     "pock-run eval MODEL.pock --data TEST [--threads N] [--log-json] [--no-verify]\n"
     "\n"
     "Loss and accuracy on a data set, every row counted once.\n"
     "\n"
     "Example:\n"
     "  pock-run eval model.pock --data test.npz\n"},
    {"predict", run_predict,
     "pock-run predict MODEL.pock --data X [-o OUT.npy] [--threads N] [--no-verify]\n"
     "\n"
     "The likeliest classes of each row, or with -o everything that the model returns: the first\n"
     "output to OUT.npy, further ones to OUT.1.npy and so on.\n"
     "\n"
     "Example:\n"
     "  pock-run predict model.pock --data x.npy -o out.npy\n"},
    {"info", run_info,
     "pock-run info MODEL.pock [--threads N] [--json]\n"
     "\n"
     "What a run will need, and whether this machine can do it. Nothing is run.\n"
     "\n"
     "Example:\n"
     "  pock-run info model.pock\n"},
    {"bench", run_bench,
     "pock-run bench MODEL.pock [--steps N] [--threads N] [--json] [--profile FILE.json]\n"
     "               [--no-verify]\n"
     "\n"
     "Time training steps on random data (20); the model is left as it is.\n"
     "\n"
     "Example:\n"
     "  pock-run bench model.pock --steps 100\n"
     "  pock-run bench model.pock --profile out.json\n"},
    {"export", run_export,
     "pock-run export MODEL.pock --to FILE.safetensors [--checkpoint DIR|FILE]\n"
     "\n"
     "Write the whole state_dict, of the artifact or of a checkpoint of it, for PyTorch.\n"
     "\n"
     "Example:\n"
     "  pock-run export model.pock --checkpoint run --to tuned.safetensors\n"},
    {"peak", run_peak,
     "pock-run peak [--threads N] [--json]\n"
     "\n"
     "What this machine reaches at most: multiply-adds out of registers, and memory.\n"
     "\n"
     "Example:\n"
     "  pock-run peak --threads 4\n"},
};
enum { VERB_COUNT = sizeof VERBS / sizeof VERBS[0] };

uint64_t process_begin_ns;

static void help(FILE *to)
{
    (void)fprintf(to, "pock-run: fine-tune a compiled model on this device\n\n");
    for (int i = 0; i < VERB_COUNT; i++) {
        const char *end = strchr(VERBS[i].help, '\n');
        (void)fprintf(to, "  %.*s\n", (int)(end - VERBS[i].help), VERBS[i].help);
    }
    (void)fprintf(to, "\npock-run VERB --help says more.\n\n"
                      "Example:\n  pock-run train model.pock --data train.npz --epochs 3\n");
}

int main(int argc, char **argv)
{
    process_begin_ns = now_ns();
    /* A full disk or a closed pipe is an error of the write, not the end of the process. */
    (void)signal(SIGXFSZ, SIG_IGN);
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        help(argc < 2 ? stderr : stdout);
        return argc < 2 ? EXIT_USAGE : 0;
    }
    for (int i = 0; i < VERB_COUNT; i++) {
        if (strcmp(argv[1], VERBS[i].name) != 0) {
            continue;
        }
        for (int k = 2; k < argc; k++) {
            if (strcmp(argv[k], "--help") == 0 || strcmp(argv[k], "-h") == 0) {
                (void)fputs(VERBS[i].help, stdout);
                return 0;
            }
        }
        const int status = VERBS[i].run(argc - 2, argv + 2);
        return fflush(stdout) == 0 || status != 0 ? status : EXIT_ERROR;
    }
    (void)fprintf(stderr, "[usage] there is no verb '%s'\n    fix  choose from: train, eval, predict, "
                          "info, bench, export, peak\n",
                  argv[1]);
    return EXIT_USAGE;
}
