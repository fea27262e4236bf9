/* Fine-tune a compiled model from C: train on a file, watch the loss, keep the result.
 *
 *     finetune MODEL.pock TRAIN.npz TEST.npz TUNED.pock
 */
#include <inttypes.h>
#include <stdio.h>

#include "pock.h"

/* Called after every event; anything but 0 would stop the run. */
static int on_report(void *user, const pock_report *report)
{
    (void)user;
    if (report->event == POCK_EPOCH) {
        printf("epoch %" PRIu32 ": loss %.4f, %.3f ms a step\n", report->epoch, report->loss,
               (double)report->step_ns / 1e6);
    } else if (report->event == POCK_EVALUATION) {
        printf("held out: loss %.4f, accuracy %.4f\n", report->figures.loss,
               report->figures.accuracy);
    }
    return 0;
}

int main(int argc, char **argv)
{
    pock_model *model = NULL;
    pock_data *train = NULL;
    pock_train_options options;
    if (argc != 5) {
        fprintf(stderr, "usage: finetune MODEL.pock TRAIN.npz TEST.npz TUNED.pock\n");
        return 2;
    }
    pock_train_defaults(&options);
    options.epochs = 3;
    options.schedule = POCK_COSINE;
    options.on_report = on_report;

    /* Every call says how it went; the message has the particulars. */
    pk_status status = pock_open(argv[1], NULL, &model);
    if (status == PK_OK) {
        status = pock_data_open(model, "train_step", argv[2], &train);
    }
    if (status == PK_OK) {
        status = pock_data_open(model, "evaluate", argv[3], &options.evaluation);
    }
    if (status == PK_OK) {
        status = pock_train(model, train, &options);
    }
    if (status == PK_OK) {
        status = pock_save(model, argv[4]);
    }
    if (status != PK_OK) {
        fprintf(stderr, "%s\n", pock_message(model));
    }
    pock_data_close(train);
    pock_data_close(options.evaluation);
    pock_close(model);
    return status == PK_OK ? 0 : 1;
}
