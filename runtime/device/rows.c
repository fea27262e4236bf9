/* From rows of data to the inputs of a call. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data.h"

static uint64_t picked(const row_pick *pick, uint64_t number)
{
    const uint64_t last = pick->rows - 1u;
    const uint64_t position = pick->first + (number < last ? number : last);
    return pick->order == NULL ? position : order_at(pick->order, position);
}

static const uint8_t *row_data(const column *c, uint64_t row)
{
    size_t low = 0;
    size_t high = c->count;
    while (high - low > 1u) {
        const size_t middle = (low + high) / 2u;
        if (c->segments[middle].first <= row) {
            low = middle;
        } else {
            high = middle;
        }
    }
    const segment *s = &c->segments[low];
    return s->data + (row - s->first) * c->row_elements * c->type.bytes;
}

typedef struct range {
    int64_t low;
    int64_t high;
} range;

static range range_of(const port_spec *spec, element type)
{
    if (spec->ranged) {
        return (range){spec->low, spec->high};
    }
    if (type.kind == ELEMENT_UINT) {
        return (range){0, (int64_t)((UINT64_C(1) << (8u * type.bytes)) - 1u)};
    }
    const int64_t high = (int64_t)((UINT64_C(1) << (8u * type.bytes - 1u)) - 1u);
    return (range){-high - 1, high};
}

static pk_status bad_value(const pock_data *d, uint32_t input, uint64_t row, uint64_t at,
                           int64_t value, range allowed)
{
    const port_spec *spec = &d->entry->input_specs[input];
    char besides[64] = "";
    if (spec->has_ignore) {
        (void)snprintf(besides, sizeof besides, " (or %" PRId64 ", which does not count)",
                       spec->ignore);
    }
    return pock_fail(&d->model->error, PK_E_DATA_VALUES, "input-values",
                     "correct the data, or compile the model for more",
                     "%s got the %s %" PRId64 " in %s, row %" PRIu64 ", element %" PRIu64
                     ", expected %" PRId64 " to %" PRId64 "%s",
                     d->name, spec->ranged ? spec->meaning : "value", value,
                     d->entry->inputs[input]->name, row, at, allowed.low, allowed.high, besides);
}

static pk_status check_row(const pock_data *d, uint32_t input, uint64_t row)
{
    const column *c = &d->columns[input];
    const port_spec *spec = &d->entry->input_specs[input];
    const range allowed = range_of(spec, element_of(d->entry->inputs[input]->dtype));
    const uint8_t *at = row_data(c, row);
    for (uint64_t i = 0; i < c->row_elements; i++, at += c->type.bytes) {
        const int64_t value = element_integer(c->type, at);
        if ((value < allowed.low || value > allowed.high) &&
            !(spec->has_ignore && value == spec->ignore)) {
            return bad_value(d, input, row, i, value, allowed);
        }
    }
    return PK_OK;
}

pk_status data_check(const pock_data *d, const row_pick *pick, uint64_t rows)
{
    for (uint32_t i = 0; i < d->entry->input_count; i++) {
        const column *c = &d->columns[i];
        const bool batched = d->entry->input_specs[i].batched;
        if (c->type.kind != ELEMENT_INT && c->type.kind != ELEMENT_UINT) {
            continue;
        }
        for (uint64_t r = 0; r < (batched ? rows : 1u); r++) {
            const pk_status status = check_row(d, i, batched ? picked(pick, r) : 0u);
            if (status != PK_OK) {
                return status;
            }
        }
    }
    return PK_OK;
}

static pk_status place_elements(const pock_data *d, uint32_t input, uint64_t first, uint64_t count,
                                const uint8_t *from)
{
    pock_model *model = d->model;
    const element type = d->columns[input].type;
    const element wanted = element_of(d->entry->inputs[input]->dtype);
    const uint32_t entry = d->entry->number;
    if (element_same(type, wanted)) {
        return model->core.input_write(model->context, entry, input, first, count, from);
    }
    while (count > 0u) {
        const uint64_t most = POCK_BUFFER_BYTES / wanted.bytes;
        const uint64_t piece = count < most ? count : most;
        element_convert(type, from, wanted, model->buffer, piece);
        const pk_status status =
            model->core.input_write(model->context, entry, input, first, piece, model->buffer);
        if (status != PK_OK) {
            return status;
        }
        from += piece * type.bytes;
        first += piece;
        count -= piece;
    }
    return PK_OK;
}

pk_status data_place(const pock_data *d, const row_pick *pick, uint64_t rows)
{
    for (uint32_t i = 0; i < d->entry->input_count; i++) {
        const column *c = &d->columns[i];
        const bool batched = d->entry->input_specs[i].batched;
        for (uint64_t r = 0; r < (batched ? rows : 1u); r++) {
            const uint64_t row = batched ? picked(pick, r) : 0u;
            const pk_status status = place_elements(d, i, r * c->row_elements, c->row_elements,
                                                    c->row_elements > 0u ? row_data(c, row)
                                                                         : d->model->buffer);
            if (status != PK_OK) {
                return model_core_status(d->model, status);
            }
        }
    }
    return PK_OK;
}

uint64_t data_find_nonfinite(const pock_data *d, const row_pick *pick, uint64_t rows,
                             const char **input)
{
    for (uint32_t i = 0; i < d->entry->input_count; i++) {
        const column *c = &d->columns[i];
        if ((c->type.kind != ELEMENT_FLOAT && c->type.kind != ELEMENT_BFLOAT) ||
            !d->entry->input_specs[i].batched) {
            continue;
        }
        for (uint64_t r = 0; r < rows; r++) {
            const uint8_t *at = row_data(c, picked(pick, r));
            for (uint64_t e = 0; e < c->row_elements; e++, at += c->type.bytes) {
                if (!isfinite(element_number(c->type, at))) {
                    *input = d->entry->inputs[i]->name;
                    return picked(pick, r);
                }
            }
        }
    }
    return UINT64_MAX;
}
