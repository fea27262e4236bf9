/* Running entries: fill the inputs, call the kernels in order, copy the outputs. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "context.h"

uint32_t pk_entry_count(const pk_context *context)
{
    return context == NULL ? 0u : context->program->entry_count;
}

uint32_t pk_micro_batches(const pk_context *context)
{
    return context == NULL ? 0u : context->program->micro_batches;
}

static const pk_entry *entry_of(const pk_context *context, uint32_t entry)
{
    if (context == NULL || entry >= context->program->entry_count) {
        return NULL;
    }
    return &context->program->entries[entry];
}

pk_status pk_entry_at(const pk_context *context, uint32_t entry, pk_entry_info *info)
{
    const pk_entry *found = entry_of(context, entry);
    if (found == NULL || info == NULL) {
        return PK_E_ARGUMENT;
    }
    info->name = found->name;
    info->inputs = found->input_count;
    info->outputs = found->output_count;
    info->steps = found->step_count;
    info->reserved = 0;
    info->arena_bytes = found->arena_bytes;
    info->lower_bound_bytes = found->lower_bound_bytes;
    return PK_OK;
}

pk_status pk_entry_find(const pk_context *context, const char *name, uint32_t *entry)
{
    if (context == NULL || name == NULL || entry == NULL) {
        return PK_E_ARGUMENT;
    }
    for (uint32_t i = 0; i < context->program->entry_count; i++) {
        if (strcmp(context->program->entries[i].name, name) == 0) {
            *entry = i;
            return PK_OK;
        }
    }
    return PK_E_NOT_FOUND;
}

pk_status pk_input_at(const pk_context *context, uint32_t entry, uint32_t input,
                      const pk_tensor **tensor)
{
    const pk_entry *found = entry_of(context, entry);
    if (found == NULL || tensor == NULL || input >= found->input_count) {
        return PK_E_ARGUMENT;
    }
    *tensor = &found->inputs[input].tensor;
    return PK_OK;
}

pk_status pk_output_at(const pk_context *context, uint32_t entry, uint32_t output,
                       const pk_tensor **tensor)
{
    const pk_entry *found = entry_of(context, entry);
    if (found == NULL || tensor == NULL || output >= found->output_count) {
        return PK_E_ARGUMENT;
    }
    *tensor = &found->outputs[output].tensor;
    return PK_OK;
}

pk_status pk_step_at(const pk_context *context, uint32_t entry, uint32_t step,
                     const char **kernel, const char **node)
{
    const pk_entry *found = entry_of(context, entry);
    if (found == NULL || kernel == NULL || node == NULL || step >= found->step_count) {
        return PK_E_ARGUMENT;
    }
    *kernel = context->program->kernels[found->steps[step].kernel].symbol;
    *node = found->nodes[step];
    return PK_OK;
}

pk_status pk_failed_step(const pk_context *context, uint32_t *entry, uint32_t *step,
                         int32_t *code)
{
    if (context == NULL || entry == NULL || step == NULL || code == NULL) {
        return PK_E_ARGUMENT;
    }
    *entry = context->failed_entry;
    *step = context->failed_step;
    *code = context->failed_code;
    return PK_OK;
}

pk_status pk_set_step_hook(pk_context *context, pk_step_hook hook, void *user)
{
    if (context == NULL) {
        return PK_E_ARGUMENT;
    }
    context->hook = hook;
    context->hook_user = user;
    return PK_OK;
}

pk_status pk_record(pk_context *context, pk_recording *recording)
{
    if (context == NULL || (recording != NULL && recording->capacity > 0u &&
                            (recording->calls == NULL || recording->shares == NULL))) {
        return PK_E_ARGUMENT;
    }
    context->recording = recording;
    return PK_OK;
}

static void set_number(const pk_tensor *tensor, void *memory, double number, int64_t integer)
{
    switch (tensor->dtype) {
    case PK_F64:
        memcpy(memory, &number, sizeof number);
        break;
    case PK_F32: {
        const float single = (float)number;
        memcpy(memory, &single, sizeof single);
        break;
    }
    case PK_I64:
        memcpy(memory, &integer, sizeof integer);
        break;
    case PK_I32: {
        const int32_t narrow = (int32_t)integer;
        memcpy(memory, &narrow, sizeof narrow);
        break;
    }
    case PK_F16:
    case PK_BF16:
    case PK_I16:
    case PK_I8:
    case PK_U8:
    case PK_B1:
        break; /* the compiler gives scalars one of the types above */
    }
}

static void set_scalars(pk_context *context, const pk_entry *entry, const pk_scalars *scalars)
{
    for (uint32_t i = 0; i < entry->scalar_count; i++) {
        const pk_value *value = &entry->scalars[i];
        void *memory = pk_address(context, value->place);
        if (value->tensor.kind == PK_LR) {
            set_number(&value->tensor, memory, (double)scalars->lr, 0);
        } else if (value->tensor.kind == PK_STEP) {
            set_number(&value->tensor, memory, (double)scalars->step, (int64_t)scalars->step);
        } else {
            set_number(&value->tensor, memory, (double)scalars->seed, scalars->seed);
        }
    }
}

/* Let the pool note what each thread does in the next call; false if there is no room. */
static bool begin_call(pk_context *context)
{
    const pk_recording *r = context->recording;
    if (r->count >= r->capacity) {
        return false;
    }
    context->pool.shares = r->shares + r->count * context->pool.threads;
    memset(context->pool.shares, 0, context->pool.threads * sizeof *r->shares);
    return true;
}

static void end_call(pk_context *context, pk_call call)
{
    pk_recording *r = context->recording;
    pk_share *shares = context->pool.shares;
    bool parallel = false;
    for (uint32_t t = 0; t < context->pool.threads; t++) {
        parallel = parallel || shares[t].end_ns != 0u;
    }
    if (!parallel) {
        const pk_share whole = {call.begin_ns, call.end_ns, call.end_ns - call.begin_ns};
        shares[0] = whole;
    }
    context->pool.shares = NULL;
    r->calls[r->count] = call;
    r->count++;
}

static pk_status call_steps(pk_context *context, uint32_t number, bool training)
{
    const pk_program *program = context->program;
    const pk_entry *entry = &program->entries[number];
    void **args = context->args[number];
    uint64_t end = 0;
    for (uint32_t i = 0; i < entry->step_count; i++) {
        const pk_step step = entry->steps[i];
        const bool recorded = training && context->recording != NULL && begin_call(context);
        const bool timed = recorded || context->hook != NULL;
        /* A clock costs as much as the smallest kernels: a call begins when the last one ends. */
        const bool follows = recorded && end != 0u && context->hook == NULL;
        const uint64_t begin = follows ? end : timed ? pk_now_ns() : 0u;
        const int32_t code = program->kernels[step.kernel].call(args + step.first_arg);
        end = timed ? pk_now_ns() : 0u;
        if (recorded) {
            const pk_call call = {number, i, begin, end};
            end_call(context, call);
        }
        if (context->hook != NULL) {
            context->hook(context->hook_user, number, i, begin, end);
        }
        if (code != 0) {
            context->failed_entry = number;
            context->failed_step = i;
            context->failed_code = code;
            return PK_E_KERNEL;
        }
    }
    return PK_OK;
}

static uint64_t element_count(const pk_tensor *tensor)
{
    return tensor->nbytes / pk_dtype_bytes(tensor->dtype);
}

static pk_status run_entry(pk_context *context, uint32_t number, const pk_scalars *scalars,
                           bool training)
{
    set_scalars(context, &context->program->entries[number], scalars);
    pk_set_current_pool(&context->pool);
    const pk_status status = call_steps(context, number, training);
    pk_set_current_pool(NULL);
    return status;
}

/* Copies the inputs to their places, with `skip` times the size of each left out at its beginning. */
static void place_inputs(pk_context *context, const pk_entry *entry, const void *const *inputs,
                         uint32_t skip)
{
    for (uint32_t i = 0; i < entry->input_count; i++) {
        const pk_value *value = &entry->inputs[i];
        const uint8_t *source = inputs[i];
        pk_scatter(&value->tensor, pk_address(context, value->place), 0,
                   element_count(&value->tensor), source + skip * value->tensor.nbytes);
    }
}

static pk_status check_call(const pk_context *context, const pk_entry *entry,
                            const void *const *inputs)
{
    if (entry == NULL || (inputs == NULL && entry->input_count > 0u)) {
        return PK_E_ARGUMENT;
    }
    for (uint32_t i = 0; i < entry->input_count; i++) {
        if (inputs[i] == NULL && entry->inputs[i].tensor.nbytes > 0u) {
            return PK_E_ARGUMENT;
        }
    }
    return context->process == getpid() ? PK_OK : PK_E_FORKED;
}

pk_status pk_run(pk_context *context, uint32_t entry, const pk_scalars *scalars,
                 const void *const *inputs, void *const *outputs)
{
    const pk_entry *found = entry_of(context, entry);
    const pk_status status = check_call(context, found, inputs);
    if (status != PK_OK) {
        return status;
    }
    if (scalars == NULL) {
        return PK_E_ARGUMENT;
    }
    place_inputs(context, found, inputs, 0);
    const pk_status ran = run_entry(context, entry, scalars, false);
    for (uint32_t i = 0; ran == PK_OK && i < found->output_count; i++) {
        const pk_value *value = &found->outputs[i];
        if (outputs != NULL && outputs[i] != NULL) {
            pk_gather(&value->tensor, pk_address(context, value->place), 0,
                      element_count(&value->tensor), outputs[i]);
        }
    }
    return ran;
}

pk_status pk_run_placed(pk_context *context, uint32_t entry, const pk_scalars *scalars)
{
    if (entry_of(context, entry) == NULL || scalars == NULL) {
        return PK_E_ARGUMENT;
    }
    return context->process == getpid() ? run_entry(context, entry, scalars, false) : PK_E_FORKED;
}

static pk_status check_elements(const pk_value *values, uint32_t count, uint32_t index,
                                uint64_t first, uint64_t elements, const void *linear)
{
    if (index >= count || (linear == NULL && elements > 0u)) {
        return PK_E_ARGUMENT;
    }
    const uint64_t size = element_count(&values[index].tensor);
    return first <= size && elements <= size - first ? PK_OK : PK_E_SIZE;
}

pk_status pk_input_write(pk_context *context, uint32_t entry, uint32_t input, uint64_t first,
                         uint64_t count, const void *source)
{
    const pk_entry *found = entry_of(context, entry);
    if (found == NULL) {
        return PK_E_ARGUMENT;
    }
    const pk_status status =
        check_elements(found->inputs, found->input_count, input, first, count, source);
    if (status == PK_OK) {
        const pk_value *value = &found->inputs[input];
        pk_scatter(&value->tensor, pk_address(context, value->place), first, count, source);
    }
    return status;
}

pk_status pk_output_read(const pk_context *context, uint32_t entry, uint32_t output,
                         uint64_t first, uint64_t count, void *target)
{
    const pk_entry *found = entry_of(context, entry);
    if (found == NULL) {
        return PK_E_ARGUMENT;
    }
    const pk_status status =
        check_elements(found->outputs, found->output_count, output, first, count, target);
    if (status == PK_OK) {
        const pk_value *value = &found->outputs[output];
        pk_gather(&value->tensor, pk_address(context, value->place), first, count, target);
    }
    return status;
}

/* Steele et al., Fast Splittable Pseudorandom Number Generators, OOPSLA 2014: the finaliser. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

int64_t pk_step_seed(int64_t seed, uint64_t step, uint32_t micro_batch)
{
    const uint64_t gamma = UINT64_C(0x9e3779b97f4a7c15);
    const uint64_t mixed = mix(mix((uint64_t)seed + gamma) + step * gamma + micro_batch);
    return (int64_t)(mixed >> 1); /* not negative */
}

static void clear_gradient_sums(pk_context *context)
{
    for (uint32_t i = 0; i < context->program->tensor_count; i++) {
        const pk_value *value = &context->program->tensors[i];
        if ((value->tensor.flags & PK_GRAD_SUM) != 0u) {
            memset(pk_address(context, value->place), 0, (size_t)value->tensor.nbytes);
        }
    }
}

static pk_status read_loss(const pk_context *context, const pk_entry *entry, double *loss)
{
    for (uint32_t i = 0; i < entry->output_count; i++) {
        const pk_value *value = &entry->outputs[i];
        const void *memory = pk_address(context, value->place);
        if (value->tensor.kind != PK_LOSS) {
            continue;
        }
        if (value->tensor.dtype == PK_F32) {
            float single = 0.0f;
            memcpy(&single, memory, sizeof single);
            *loss = (double)single;
            return PK_OK;
        }
        if (value->tensor.dtype == PK_F64) {
            memcpy(loss, memory, sizeof *loss);
            return PK_OK;
        }
    }
    return PK_E_PROGRAM;
}

/* The sum of the micro-batches' losses; stops at the first that is not finite. */
static pk_status run_micro_batches(pk_context *context, uint32_t entry, pk_scalars *scalars,
                                   pk_fill fill, void *user, double *sum)
{
    const pk_entry *found = &context->program->entries[entry];
    for (uint32_t i = 0; i < context->program->micro_batches; i++) {
        scalars->seed = pk_step_seed(context->seed, scalars->step, i);
        pk_status status = fill(user, i);
        if (status == PK_OK) {
            status = run_entry(context, entry, scalars, true);
        }
        double loss = 0.0;
        if (status == PK_OK) {
            status = read_loss(context, found, &loss);
        }
        if (status != PK_OK) {
            return status;
        }
        *sum += loss;
        if (!isfinite(loss)) {
            return PK_E_NONFINITE;
        }
    }
    return PK_OK;
}

static pk_status take_step(pk_context *context, uint32_t entry, float lr, pk_fill fill, void *user,
                           float *loss)
{
    uint32_t apply = 0;
    const bool has_apply = pk_entry_find(context, "apply_update", &apply) == PK_OK;
    pk_scalars scalars = {lr, 0, context->step + 1u, 0};
    double sum = 0.0;
    pk_status status = run_micro_batches(context, entry, &scalars, fill, user, &sum);
    *loss = (float)(sum / (double)context->program->micro_batches);
    if (status == PK_OK && has_apply) {
        status = run_entry(context, apply, &scalars, true);
    }
    if (status != PK_OK) {
        clear_gradient_sums(context);
        return status;
    }
    context->step += 1u;
    return PK_OK;
}

pk_status pk_train_step_placed(pk_context *context, float lr, pk_fill fill, void *user,
                               float *loss)
{
    uint32_t entry = 0;
    const pk_status status = pk_entry_find(context, "train_step", &entry);
    if (status != PK_OK) {
        return status;
    }
    if (context->process != getpid()) {
        return PK_E_FORKED;
    }
    if (fill == NULL || loss == NULL) {
        return PK_E_ARGUMENT;
    }
    return take_step(context, entry, lr, fill, user, loss);
}

typedef struct whole_batch {
    pk_context *context;
    const pk_entry *entry;
    const void *const *inputs;
} whole_batch;

static pk_status fill_from_batch(void *user, uint32_t micro_batch)
{
    const whole_batch *batch = user;
    place_inputs(batch->context, batch->entry, batch->inputs, micro_batch);
    return PK_OK;
}

pk_status pk_train_step(pk_context *context, float lr, const void *const *inputs, float *loss)
{
    uint32_t entry = 0;
    pk_status status = pk_entry_find(context, "train_step", &entry);
    if (status != PK_OK) {
        return status;
    }
    whole_batch batch = {context, &context->program->entries[entry], inputs};
    status = check_call(context, batch.entry, inputs);
    if (status != PK_OK) {
        return status;
    }
    if (loss == NULL) {
        return PK_E_ARGUMENT;
    }
    return take_step(context, entry, lr, fill_from_batch, &batch, loss);
}
