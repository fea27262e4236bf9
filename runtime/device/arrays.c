/* Tensors by name, and single steps on arrays of the caller. */
#include <inttypes.h>
#include <string.h>

#include "model.h"

/* A tensor of the program by any of its names. */
static pk_status find(pock_model *model, const char *name, uint32_t *index, const pk_tensor **t)
{
    char kept[POCK_NAME_BYTES];
    json value = {NULL, NULL};
    const core *c = &model->core;
    const bool alias = json_find(model->manifest.aliases, name, &value) &&
                       json_string(value, kept, sizeof kept);
    if (c->tensor_find(model->context, alias ? kept : name, index) == PK_OK) {
        return model_core_status(model, c->tensor_at(model->context, *index, t));
    }
    return pock_fail(&model->error, PK_E_NOT_FOUND, "no-tensor",
                     "names are those of the model's state_dict",
                     "there is no tensor '%s' that a step reads", name);
}

pk_status pock_tensor_find(pock_model *model, const char *name, const pk_tensor **tensor)
{
    uint32_t index = 0;
    const pk_status status = model_check_open(model);
    if (status != PK_OK || name == NULL || tensor == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    return find(model, name, &index, tensor);
}

static pk_status check_size(pock_model *model, const pk_tensor *t, uint64_t nbytes)
{
    if (nbytes == t->nbytes) {
        return PK_OK;
    }
    return pock_fail(&model->error, PK_E_SIZE, "tensor-size", "give room for the whole tensor",
                     "'%s' has %" PRIu64 " bytes, %" PRIu64 " were given", t->name, t->nbytes,
                     nbytes);
}

/* The number and the elements of a tensor whose bytes are to be moved from or to `memory`. */
static pk_status locate(pock_model *model, const char *name, const void *memory, uint64_t nbytes,
                        uint32_t *index, uint64_t *count)
{
    const pk_tensor *t = NULL;
    pk_status status = model_check_open(model);
    if (status != PK_OK || name == NULL || memory == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    status = find(model, name, index, &t);
    status = status == PK_OK ? check_size(model, t, nbytes) : status;
    *count = status == PK_OK ? nbytes / element_of(t->dtype).bytes : 0u;
    return status;
}

pk_status pock_tensor_get(pock_model *model, const char *name, void *target, uint64_t nbytes)
{
    uint32_t index = 0;
    uint64_t count = 0;
    const pk_status status = locate(model, name, target, nbytes, &index, &count);
    return status != PK_OK ? status
                           : model_core_status(model, model->core.tensor_read(
                                                          model->context, index, 0, count, target));
}

pk_status pock_tensor_set(pock_model *model, const char *name, const void *source, uint64_t nbytes)
{
    uint32_t index = 0;
    uint64_t count = 0;
    const pk_status status = locate(model, name, source, nbytes, &index, &count);
    return status != PK_OK ? status
                           : model_core_status(model, model->core.tensor_write(
                                                          model->context, index, 0, count, source));
}

pk_status pock_train_step(pock_model *model, float lr, const void *const *inputs, float *loss)
{
    pk_status status = model_check_open(model);
    if (status != PK_OK || loss == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    const float rate = lr < 0.0f ? (float)model->manifest.learning_rate : lr;
    status = model->core.train_step(model->context, rate, inputs, loss);
    if (status != PK_E_NONFINITE) {
        return model_core_status(model, status);
    }
    model->diverged = model->manifest.micro_batches == 1u;
    return pock_fail(&model->error, status, "nonfinite-loss",
                     "lower the learning rate or clip gradients, check the data for NaN, and go "
                     "on from the last checkpoint",
                     "the loss is %g, with learning rate %g", (double)*loss, (double)rate);
}

/* Rows `first` and on, the last one again where there are none left. */
static pk_status place_rows(pock_model *model, const entry_spec *e, const void *const *inputs,
                            uint64_t first, uint64_t rows)
{
    for (uint32_t i = 0; i < e->input_count; i++) {
        const bool batched = e->input_specs[i].batched;
        const uint64_t count = batched ? e->rows : 1u;
        const uint64_t bytes = e->inputs[i]->nbytes / count;
        const uint64_t elements = bytes / element_of(e->inputs[i]->dtype).bytes;
        for (uint64_t r = 0; r < count; r++) {
            const uint64_t row = batched ? first + (r < rows ? r : rows - 1u) : 0u;
            const uint8_t *from = (const uint8_t *)inputs[i] + row * bytes;
            const pk_status status = model->core.input_write(model->context, e->number, i,
                                                             r * elements, elements, from);
            if (status != PK_OK) {
                return status;
            }
        }
    }
    return PK_OK;
}

pk_status pock_predict(pock_model *model, uint64_t rows, const void *const *inputs, void *outputs)
{
    const pk_scalars scalars = {0.0f, 0, 1, 0};
    pk_status status = model_check_open(model);
    if (status != PK_OK || inputs == NULL || outputs == NULL) {
        return status != PK_OK ? status : PK_E_ARGUMENT;
    }
    const entry_spec *e = &model->entries[ENTRY_PREDICT];
    if (!e->present || e->output_count == 0u || (!e->output_batched[0] && rows != e->rows)) {
        return pock_fail(&model->error, PK_E_DATA_SHAPE, "partial-batch",
                         "give as many rows as the model was compiled for",
                         "predict has no result for each of %" PRIu64 " rows", rows);
    }
    const uint64_t bytes = e->outputs[0]->nbytes / e->rows;
    const uint64_t elements = bytes / element_of(e->outputs[0]->dtype).bytes;
    for (uint64_t first = 0; first < rows && status == PK_OK; first += e->rows) {
        const uint64_t count = rows - first < e->rows ? rows - first : e->rows;
        status = place_rows(model, e, inputs, first, count);
        if (status == PK_OK) {
            status = model->core.run_placed(model->context, e->number, &scalars);
        }
        if (status == PK_OK) {
            status = model->core.output_read(model->context, e->number, 0, 0, count * elements,
                                             (uint8_t *)outputs + first * bytes);
        }
    }
    return model_core_status(model, status);
}
