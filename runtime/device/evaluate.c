/* Loss, accuracy and predictions over a data set, every row counted once (evaluation.py).
 *
 * The entry `evaluate` gives numbers per row, so that the last batch can be padded, with its last
 * row, and the padding left out of the sums. Sums are in float64.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data.h"

static const pk_scalars no_scalars = {0.0f, 0, 1, 0};

static pk_status run_rows(pock_data *d, const row_pick *pick)
{
    pock_model *model = d->model;
    const uint64_t rows = d->entry->rows;
    pk_status status = data_check(d, pick, pick->rows < rows ? pick->rows : rows);
    if (status == PK_OK) {
        status = data_place(d, pick, rows);
    }
    if (status == PK_OK) {
        const uint32_t entry = d->entry->number;
        status = model_core_status(model,
                                   model->core.run_placed(model->context, entry, &no_scalars));
    }
    return status;
}

/* The result of a whole call says nothing about some of its rows. */
static pk_status check_partial(pock_data *d, uint64_t rows)
{
    uint32_t by_row = 0;
    for (uint32_t i = 0; i < d->entry->output_count; i++) {
        if (d->entry->outputs[i]->kind == PK_LOSS) {
            continue;
        }
        if (!d->entry->output_batched[i]) {
            by_row = 0;
            break;
        }
        by_row++;
    }
    if (by_row > 0u || rows == d->entry->rows) {
        return PK_OK;
    }
    return pock_fail(&d->model->error, PK_E_DATA_SHAPE, "partial-batch",
                     "give a multiple of these rows",
                     "%s has a result for %" PRIu64 " rows together and got %" PRIu64 " rows",
                     d->name, d->entry->rows, rows);
}

/* The sum of the first `rows` rows of an output. */
static pk_status sum_output(pock_data *d, uint32_t output, uint64_t rows, double *sum)
{
    pock_model *model = d->model;
    const pk_tensor *t = d->entry->outputs[output];
    const element type = element_of(t->dtype);
    uint64_t elements = t->nbytes / type.bytes;
    *sum = 0.0;
    if (d->entry->output_batched[output] && t->shape[0] > 0) {
        elements = elements / (uint64_t)t->shape[0] * rows;
    }
    for (uint64_t first = 0; first < elements;) {
        const uint64_t most = POCK_BUFFER_BYTES / type.bytes;
        const uint64_t count = elements - first < most ? elements - first : most;
        const pk_status status = model->core.output_read(model->context, d->entry->number, output,
                                                         first, count, model->buffer);
        if (status != PK_OK) {
            return model_core_status(model, status);
        }
        for (uint64_t i = 0; i < count; i++) {
            *sum += element_number(type, model->buffer + i * type.bytes);
        }
        first += count;
    }
    /* A number for the batch as a whole counts as often as the batch has rows. */
    *sum *= t->rank > 0u ? 1.0 : (double)rows;
    return PK_OK;
}

/* Per output. */
typedef struct sums {
    double of[POCK_MAX_PORTS];
} sums;

static double total_of(const entry_spec *entry, const sums *s, const char *name)
{
    for (uint32_t i = 0; i < entry->output_count; i++) {
        if (strcmp(entry->outputs[i]->name, name) == 0) {
            return s->of[i];
        }
    }
    return NAN;
}

static double ratio(double top, double bottom)
{
    return bottom != 0.0 ? top / bottom : (double)NAN;
}

static pk_status add_batch(pock_data *d, uint64_t rows, sums *s)
{
    for (uint32_t i = 0; i < d->entry->output_count; i++) {
        double sum = 0.0;
        if (rows != d->entry->rows && d->entry->outputs[i]->kind == PK_LOSS) {
            continue;
        }
        const pk_status status = sum_output(d, i, rows, &sum);
        if (status != PK_OK) {
            return status;
        }
        s->of[i] += sum;
    }
    return PK_OK;
}

static pk_status no_rows(pock_data *d)
{
    return pock_fail(&d->model->error, PK_E_DATA_SHAPE, "no-data", "give some data",
                     "there is no row in %s", d->path);
}

static pk_status check_entry(pock_model *model, const pock_data *data, int kind)
{
    const pk_status status = model_check_open(model);
    if (status != PK_OK || data == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    if (data->model == model && data->entry == &model->entries[kind]) {
        return PK_OK;
    }
    return pock_fail(&model->error, PK_E_ARGUMENT, "data-entry", "open the data for this entry",
                     "data of %s was given to %s", data->name, ENTRY_NAMES[kind]);
}

pk_status pock_evaluate(pock_model *model, pock_data *data, pock_figures *figures)
{
    sums s = {{0.0}};
    pk_status status = check_entry(model, data, ENTRY_EVALUATE);
    if (status != PK_OK || figures == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    if (data->rows == 0u) {
        return no_rows(data);
    }
    const uint64_t step = data->entry->rows;
    for (uint64_t first = 0; first < data->rows; first += step) {
        const uint64_t left = data->rows - first;
        const uint64_t rows = left < step ? left : step;
        const row_pick pick = {NULL, first, rows};
        status = check_partial(data, rows);
        status = status == PK_OK ? run_rows(data, &pick) : status;
        status = status == PK_OK ? add_batch(data, rows, &s) : status;
        if (status != PK_OK) {
            return status;
        }
    }
    const entry_spec *e = data->entry;
    figures->samples = data->rows;
    figures->loss = ratio(total_of(e, &s, "loss_rows"), total_of(e, &s, "weight_rows"));
    if (isnan(total_of(e, &s, "loss_rows"))) {
        figures->loss = total_of(e, &s, "loss") / (double)data->rows;
    }
    figures->accuracy = ratio(total_of(e, &s, "correct_rows"), total_of(e, &s, "count_rows"));
    return PK_OK;
}

/* One row-major copy of each output, in `room`, which has place for all of them. */
static pk_status read_outputs(pock_data *d, uint8_t *room, const void **outputs)
{
    pock_model *model = d->model;
    for (uint32_t i = 0; i < d->entry->output_count; i++) {
        const pk_tensor *t = d->entry->outputs[i];
        const uint64_t elements = t->nbytes / element_of(t->dtype).bytes;
        const pk_status status = model->core.output_read(model->context, d->entry->number, i, 0,
                                                         elements, room);
        if (status != PK_OK) {
            return model_core_status(model, status);
        }
        outputs[i] = room;
        room += (t->nbytes + 63u) / 64u * 64u;
    }
    return PK_OK;
}

static uint8_t *room_for_outputs(const entry_spec *entry)
{
    uint64_t bytes = 64;
    for (uint32_t i = 0; i < entry->output_count; i++) {
        bytes += (entry->outputs[i]->nbytes + 63u) / 64u * 64u;
    }
    return bytes > SIZE_MAX ? NULL : aligned_alloc(64, (size_t)bytes);
}

pk_status pock_predict_data(pock_model *model, pock_data *data, pock_on_rows on_rows, void *user)
{
    const void *outputs[POCK_MAX_PORTS];
    pk_status status = check_entry(model, data, ENTRY_PREDICT);
    if (status != PK_OK || on_rows == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    uint8_t *room = room_for_outputs(data->entry);
    if (room == NULL) {
        return model_core_status(model, PK_E_MEMORY);
    }
    const uint64_t step = data->entry->rows;
    for (uint64_t first = 0; first < data->rows && status == PK_OK; first += step) {
        const uint64_t left = data->rows - first;
        const uint64_t rows = left < step ? left : step;
        const row_pick pick = {NULL, first, rows};
        status = check_partial(data, rows);
        status = status == PK_OK ? run_rows(data, &pick) : status;
        status = status == PK_OK ? read_outputs(data, room, outputs) : status;
        if (status == PK_OK && on_rows(user, first, rows, outputs) != 0) {
            status = pock_fail(&model->error, PK_E_STOPPED, "stopped", NULL,
                               "stopped, as asked, after %" PRIu64 " rows", first + rows);
        }
    }
    free(room);
    return status;
}
