/* Tensors by name and number, and the way between their own order and row-major. */
#include <math.h>
#include <string.h>

#include "context.h"

uint32_t pk_dtype_bytes(pk_dtype dtype)
{
    switch (dtype) {
    case PK_F64:
    case PK_I64:
        return 8;
    case PK_F32:
    case PK_I32:
        return 4;
    case PK_F16:
    case PK_BF16:
    case PK_I16:
        return 2;
    case PK_I8:
    case PK_U8:
    case PK_B1:
        return 1;
    }
    return 0;
}

/* A position in a tensor: the logical index, and the element offset in the tensor's own order. */
typedef struct cursor {
    uint64_t index[PK_MAX_RANK];
    uint64_t strides[PK_MAX_RANK];
    uint64_t offset;
} cursor;

static cursor cursor_at(const pk_tensor *tensor, uint64_t element)
{
    cursor c = {{0}, {0}, 0};
    uint64_t stride = 1;
    for (uint32_t i = tensor->rank; i-- > 0u;) {
        const uint32_t dimension = tensor->order[i];
        c.strides[dimension] = stride;
        stride *= (uint64_t)tensor->shape[dimension];
    }
    for (uint32_t d = tensor->rank; d-- > 0u;) {
        const uint64_t size = (uint64_t)tensor->shape[d];
        c.index[d] = element % size;
        c.offset += c.index[d] * c.strides[d];
        element /= size;
    }
    return c;
}

/* Move past a run that ended at the end of the last dimension. */
static void next_row(const pk_tensor *tensor, cursor *c, uint64_t run)
{
    uint32_t d = tensor->rank - 1u;
    c->index[d] += run;
    c->offset += run * c->strides[d];
    while (d > 0u && c->index[d] == (uint64_t)tensor->shape[d]) {
        c->offset -= c->index[d] * c->strides[d];
        c->index[d] = 0;
        d--;
        c->index[d] += 1u;
        c->offset += c->strides[d];
    }
}

#define COPY_RUN(type)                                                                             \
    do {                                                                                           \
        for (uint64_t i = 0; i < count; i++) {                                                     \
            memcpy(to + i * to_stride * sizeof(type), from + i * from_stride * sizeof(type),       \
                   sizeof(type));                                                                  \
        }                                                                                          \
    } while (0)

static void copy_run(uint8_t *to, uint64_t to_stride, const uint8_t *from, uint64_t from_stride,
                     uint64_t count, uint32_t bytes)
{
    switch (bytes) {
    case 8:
        COPY_RUN(uint64_t);
        break;
    case 4:
        COPY_RUN(uint32_t);
        break;
    case 2:
        COPY_RUN(uint16_t);
        break;
    default:
        COPY_RUN(uint8_t);
        break;
    }
}

static uint64_t run_length(const pk_tensor *tensor, const cursor *c, uint64_t left)
{
    const uint32_t last = tensor->rank - 1u;
    const uint64_t rest = (uint64_t)tensor->shape[last] - c->index[last];
    return rest < left ? rest : left;
}

void pk_gather(const pk_tensor *tensor, const uint8_t *memory, uint64_t first, uint64_t count,
               uint8_t *linear)
{
    const uint32_t bytes = pk_dtype_bytes(tensor->dtype);
    if (count == 0u) {
        return;
    }
    if (tensor->order == NULL || tensor->rank == 0u) {
        memcpy(linear, memory + first * bytes, (size_t)(count * bytes));
        return;
    }
    cursor c = cursor_at(tensor, first);
    const uint64_t stride = c.strides[tensor->rank - 1u];
    while (count > 0u) {
        const uint64_t run = run_length(tensor, &c, count);
        copy_run(linear, 1, memory + c.offset * bytes, stride, run, bytes);
        linear += run * bytes;
        count -= run;
        next_row(tensor, &c, run);
    }
}

void pk_scatter(const pk_tensor *tensor, uint8_t *memory, uint64_t first, uint64_t count,
                const uint8_t *linear)
{
    const uint32_t bytes = pk_dtype_bytes(tensor->dtype);
    if (count == 0u) {
        return;
    }
    if (tensor->order == NULL || tensor->rank == 0u) {
        memcpy(memory + first * bytes, linear, (size_t)(count * bytes));
        return;
    }
    cursor c = cursor_at(tensor, first);
    const uint64_t stride = c.strides[tensor->rank - 1u];
    while (count > 0u) {
        const uint64_t run = run_length(tensor, &c, count);
        copy_run(memory + c.offset * bytes, stride, linear, 1, run, bytes);
        linear += run * bytes;
        count -= run;
        next_row(tensor, &c, run);
    }
}

uint32_t pk_tensor_count(const pk_context *context)
{
    return context == NULL ? 0u : context->program->tensor_count;
}

pk_status pk_tensor_at(const pk_context *context, uint32_t index, const pk_tensor **tensor)
{
    if (context == NULL || tensor == NULL || index >= context->program->tensor_count) {
        return PK_E_ARGUMENT;
    }
    *tensor = &context->program->tensors[index].tensor;
    return PK_OK;
}

pk_status pk_tensor_find(const pk_context *context, const char *name, uint32_t *index)
{
    if (context == NULL || name == NULL || index == NULL) {
        return PK_E_ARGUMENT;
    }
    for (uint32_t i = 0; i < context->program->tensor_count; i++) {
        if (strcmp(context->program->tensors[i].tensor.name, name) == 0) {
            *index = i;
            return PK_OK;
        }
    }
    return PK_E_NOT_FOUND;
}

pk_status pk_tensor_memory(const pk_context *context, uint32_t index, void **memory)
{
    if (context == NULL || memory == NULL || index >= context->program->tensor_count) {
        return PK_E_ARGUMENT;
    }
    *memory = pk_address(context, context->program->tensors[index].place);
    return PK_OK;
}

static pk_status check_range(const pk_context *context, uint32_t index, uint64_t first,
                             uint64_t count, const void *linear)
{
    if (context == NULL || index >= context->program->tensor_count ||
        (linear == NULL && count > 0u)) {
        return PK_E_ARGUMENT;
    }
    const pk_tensor *tensor = &context->program->tensors[index].tensor;
    const uint64_t size = tensor->nbytes / pk_dtype_bytes(tensor->dtype);
    return first <= size && count <= size - first ? PK_OK : PK_E_SIZE;
}

pk_status pk_tensor_read(const pk_context *context, uint32_t index, uint64_t first,
                         uint64_t count, void *target)
{
    const pk_status status = check_range(context, index, first, count, target);
    if (status == PK_OK) {
        const pk_value *value = &context->program->tensors[index];
        pk_gather(&value->tensor, pk_address(context, value->place), first, count, target);
    }
    return status;
}

/* Whether memory holds these elements; read in pieces, as they may lie in another order. */
static bool holds(const pk_tensor *tensor, const uint8_t *memory, uint64_t first, uint64_t count,
                  const uint8_t *source)
{
    enum { PIECE = 1024 };
    uint64_t piece[PIECE / sizeof(uint64_t)];
    const uint32_t bytes = pk_dtype_bytes(tensor->dtype);
    for (uint64_t done = 0; done < count;) {
        const uint64_t left = count - done;
        const uint64_t size = left < PIECE / bytes ? left : PIECE / bytes;
        pk_gather(tensor, memory, first + done, size, (uint8_t *)piece);
        if (memcmp(piece, source + done * bytes, (size_t)(size * bytes)) != 0) {
            return false;
        }
        done += size;
    }
    return true;
}

pk_status pk_tensor_write(pk_context *context, uint32_t index, uint64_t first, uint64_t count,
                          const void *source)
{
    pk_status status = check_range(context, index, first, count, source);
    if (status != PK_OK) {
        return status;
    }
    const pk_value *value = &context->program->tensors[index];
    uint8_t *memory = pk_address(context, value->place);
    if (PK_PLACE_SPACE(value->place) == PK_SPACE_FROZEN) {
        if (holds(&value->tensor, memory, first, count, source)) {
            return PK_OK;
        }
        status = pk_frozen_unprotect(context);
    }
    if (status == PK_OK) {
        pk_scatter(&value->tensor, memory, first, count, source);
    }
    return status;
}

pk_status pk_frozen_offset(const pk_context *context, uint32_t index, uint64_t *offset)
{
    if (context == NULL || offset == NULL || index >= context->program->tensor_count) {
        return PK_E_ARGUMENT;
    }
    const uint64_t place = context->program->tensors[index].place;
    if (PK_PLACE_SPACE(place) != PK_SPACE_FROZEN) {
        return PK_E_NOT_FOUND;
    }
    *offset = PK_PLACE_OFFSET(place);
    return PK_OK;
}

/* Whether the exponent is all ones, which is how IEEE writes NaN and infinity. */
static bool finite_f16(const uint16_t *bits, uint64_t count, uint16_t exponent)
{
    for (uint64_t i = 0; i < count; i++) {
        if ((bits[i] & exponent) == exponent) {
            return false;
        }
    }
    return true;
}

static bool finite_f32(const float *numbers, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (!isfinite(numbers[i])) {
            return false;
        }
    }
    return true;
}

static bool finite_f64(const double *numbers, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (!isfinite(numbers[i])) {
            return false;
        }
    }
    return true;
}

static bool all_finite(const pk_tensor *tensor, const void *memory)
{
    switch (tensor->dtype) {
    case PK_F64:
        return finite_f64(memory, tensor->nbytes / 8u);
    case PK_F32:
        return finite_f32(memory, tensor->nbytes / 4u);
    case PK_F16:
        return finite_f16(memory, tensor->nbytes / 2u, 0x7c00u);
    case PK_BF16:
        return finite_f16(memory, tensor->nbytes / 2u, 0x7f80u);
    case PK_I64:
    case PK_I32:
    case PK_I16:
    case PK_I8:
    case PK_U8:
    case PK_B1:
        return true;
    }
    return true;
}

pk_status pk_state_check(const pk_context *context, uint32_t *index)
{
    if (context == NULL || index == NULL) {
        return PK_E_ARGUMENT;
    }
    for (uint32_t i = 0; i < context->program->tensor_count; i++) {
        const pk_value *value = &context->program->tensors[i];
        if ((value->tensor.flags & PK_WRITTEN) != 0u &&
            !all_finite(&value->tensor, pk_address(context, value->place))) {
            *index = i;
            return PK_E_NONFINITE;
        }
    }
    return PK_OK;
}
