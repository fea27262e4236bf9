/* The C interface, called as a C program calls it; built with sanitizers by test_c.py.
 *
 * Prints one line per failed check and returns their number. The program under it is the toy
 * classifier: 4 rows of 3 features, 5 classes; `predict` ends in a kernel that returns 7.
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "context.h"
#include "pock_core.h"

static int failures;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                                 \
        }                                                                                          \
    } while (0)

/* Rows of two micro-batches. */
static const float x[24] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 0, 1};
static const int64_t target[8] = {0, 1, 2, 3, 4};
static const void *const batch[2] = {x, target};

/* What the file of frozen tensors holds behind its header: a mean of zeros, a scale of one. */
enum { FROZEN_OFFSET = 192, FROZEN_BYTES = 128, SCALE_OFFSET = 64 };

static pk_frozen frozen_file(void)
{
    static FILE *file;
    const float one = 1.0f;
    if (file == NULL) {
        file = tmpfile();
        CHECK(file != NULL && ftruncate(fileno(file), FROZEN_OFFSET + FROZEN_BYTES) == 0);
        CHECK(pwrite(fileno(file), &one, sizeof one, FROZEN_OFFSET + SCALE_OFFSET) == sizeof one);
    }
    const pk_frozen frozen = {fileno(file), 0, FROZEN_OFFSET};
    return frozen;
}

static pk_context *opened(uint32_t threads)
{
    pk_context *context = NULL;
    const pk_frozen frozen = frozen_file();
    CHECK(pk_open(threads, &frozen, &context) == PK_OK);
    return context;
}

static void check_status_texts(void)
{
    for (int status = 0; status <= (int)PK_E_STOPPED; status++) {
        if (status == (int)PK_E_FROZEN + 1) {
            status = (int)PK_E_NO_ARTIFACT; /* numbers that are kept free */
        }
        CHECK(strcmp(pk_status_text((pk_status)status), "unknown status") != 0);
    }
    CHECK(strcmp(pk_status_text((pk_status)99), "unknown status") == 0);
    CHECK(pk_abi_version() == PK_ABI_VERSION);
}

static void check_null_arguments(void)
{
    pk_memory memory;
    pk_entry_info info;
    const pk_tensor *tensor = NULL;
    uint32_t index = 0;
    CHECK(pk_open(1, NULL, NULL) == PK_E_ARGUMENT);
    CHECK(pk_open_program(NULL, 1, NULL, NULL) == PK_E_ARGUMENT);
    CHECK(pk_frozen_offset(NULL, 0, NULL) == PK_E_ARGUMENT && pk_frozen_changed(NULL) == 0);
    CHECK(pk_memory_needed(1, NULL) == PK_E_ARGUMENT);
    CHECK(pk_memory_used(NULL, &memory) == PK_E_ARGUMENT);
    CHECK(pk_entry_at(NULL, 0, &info) == PK_E_ARGUMENT);
    CHECK(pk_tensor_at(NULL, 0, &tensor) == PK_E_ARGUMENT);
    CHECK(pk_tensor_find(NULL, "x", &index) == PK_E_ARGUMENT);
    CHECK(pk_threads(NULL) == 0 && pk_tensor_count(NULL) == 0 && pk_entry_count(NULL) == 0);
    pk_close(NULL);
}

static void check_tables(void)
{
    pk_context *context = opened(1);
    pk_memory needed;
    pk_memory used;
    CHECK(pk_memory_needed(1, &needed) == PK_OK && pk_memory_used(context, &used) == PK_OK);
    CHECK(memcmp(&needed, &used, sizeof used) == 0);
    CHECK(used.state_bytes == 256 && used.arena_bytes == 896);
    CHECK(used.frozen_bytes == 128);
    CHECK(used.total_bytes >= used.state_bytes + used.arena_bytes + used.runtime_bytes);
    uint32_t entry = 0;
    CHECK(pk_entry_find(context, "evaluate", &entry) == PK_OK);
    CHECK(pk_entry_find(context, "nothing", &entry) == PK_E_NOT_FOUND);
    pk_entry_info info;
    CHECK(pk_entry_at(context, entry, &info) == PK_OK && info.inputs == 2 && info.outputs == 4);
    CHECK(pk_entry_at(context, 99, &info) == PK_E_ARGUMENT);
    const pk_tensor *tensor = NULL;
    CHECK(pk_input_at(context, entry, 1, &tensor) == PK_OK);
    CHECK(strcmp(tensor->name, "target") == 0 && tensor->dtype == PK_I64);
    CHECK(tensor->kind == PK_BATCH && tensor->rank == 1 && tensor->shape[0] == 4);
    CHECK(pk_input_at(context, entry, 2, &tensor) == PK_E_ARGUMENT);
    CHECK(pk_output_at(context, entry, 4, &tensor) == PK_E_ARGUMENT);
    const char *kernel = NULL;
    const char *node = NULL;
    CHECK(pk_step_at(context, entry, 0, &kernel, &node) == PK_OK);
    CHECK(strcmp(kernel, "toy_forward") == 0 && strcmp(node, "logits") == 0);
    CHECK(pk_step_at(context, entry, 99, &kernel, &node) == PK_E_ARGUMENT);
    pk_close(context);
}

static void check_layouts(void)
{
    pk_context *context = opened(1);
    uint32_t weight = 0;
    const pk_tensor *tensor = NULL;
    CHECK(pk_tensor_find(context, "fc.weight", &weight) == PK_OK);
    CHECK(pk_tensor_at(context, weight, &tensor) == PK_OK);
    CHECK(tensor->order != NULL && tensor->order[0] == 1 && (tensor->flags & PK_WRITTEN) != 0);
    float logical[15];
    for (int i = 0; i < 15; i++) {
        logical[i] = (float)i;
    }
    /* In pieces that do not end at rows. */
    CHECK(pk_tensor_write(context, weight, 0, 7, logical) == PK_OK);
    CHECK(pk_tensor_write(context, weight, 7, 8, logical + 7) == PK_OK);
    void *memory = NULL;
    CHECK(pk_tensor_memory(context, weight, &memory) == PK_OK);
    for (int k = 0; k < 5; k++) {
        for (int i = 0; i < 3; i++) {
            float kept = -1.0f;
            memcpy(&kept, (const char *)memory + (i * 5 + k) * 4, sizeof kept);
            CHECK(kept == logical[k * 3 + i]);
        }
    }
    float back[15] = {0};
    for (uint64_t first = 0; first < 15; first += 4) {
        const uint64_t count = first + 4 > 15 ? 15 - first : 4;
        CHECK(pk_tensor_read(context, weight, first, count, back + first) == PK_OK);
    }
    CHECK(memcmp(logical, back, sizeof back) == 0);
    CHECK(pk_tensor_read(context, weight, 14, 2, back) == PK_E_SIZE);
    CHECK(pk_tensor_read(context, weight, 16, 0, back) == PK_E_SIZE);
    CHECK(pk_tensor_write(context, weight, UINT64_MAX, 2, back) == PK_E_SIZE);
    CHECK(pk_tensor_write(context, weight, 0, 15, NULL) == PK_E_ARGUMENT);
    CHECK(pk_tensor_write(context, 99, 0, 1, back) == PK_E_ARGUMENT);
    pk_close(context);
}

static void check_frozen(void)
{
    pk_context *context = opened(1);
    uint32_t scale = 0;
    uint32_t weight = 0;
    uint64_t offset = 0;
    void *memory = NULL;
    float number = 1.0f;
    CHECK(pk_tensor_find(context, "constant.scale", &scale) == PK_OK);
    CHECK(pk_tensor_find(context, "fc.weight", &weight) == PK_OK);
    CHECK(pk_frozen_offset(context, scale, &offset) == PK_OK && offset == SCALE_OFFSET);
    CHECK(pk_frozen_offset(context, weight, &offset) == PK_E_NOT_FOUND);
    CHECK(pk_frozen_offset(context, 99, &offset) == PK_E_ARGUMENT);
    CHECK(pk_tensor_memory(context, scale, &memory) == PK_OK);
    CHECK(((uintptr_t)memory & 63u) == 0u);
    /* What it holds already changes nothing; anything else does not reach the file. */
    CHECK(pk_tensor_write(context, scale, 0, 1, &number) == PK_OK);
    CHECK(pk_frozen_changed(context) == 0);
    number = 2.0f;
    CHECK(pk_tensor_write(context, scale, 0, 1, &number) == PK_OK);
    CHECK(pk_frozen_changed(context) == 1);
    pk_context *other = opened(1);
    CHECK(pk_tensor_read(other, scale, 0, 1, &number) == PK_OK && number == 1.0f);
    CHECK(pk_tensor_read(context, scale, 0, 1, &number) == PK_OK && number == 2.0f);
    pk_close(other);
    pk_close(context);
}

static void check_bad_frozen_files(void)
{
    pk_context *context = NULL;
    pk_frozen frozen = frozen_file();
    CHECK(pk_open(1, NULL, &context) == PK_E_FROZEN && context == NULL);
    frozen.offset += 64; /* the file is too short */
    CHECK(pk_open(1, &frozen, &context) == PK_E_FROZEN && context == NULL);
    frozen.offset = UINT64_MAX - 63u;
    CHECK(pk_open(1, &frozen, &context) == PK_E_FROZEN);
    frozen = frozen_file();
    frozen.offset += 4;
    CHECK(pk_open(1, &frozen, &context) == PK_E_FROZEN);
    frozen.file = -1;
    CHECK(pk_open(1, &frozen, &context) == PK_E_FROZEN);
}

static float loss_after(uint32_t threads, int steps)
{
    pk_context *context = opened(threads);
    float loss = -1.0f;
    for (int i = 0; i < steps; i++) {
        CHECK(pk_train_step(context, 0.05f, batch, &loss) == PK_OK);
    }
    uint64_t step = 0;
    int64_t seed = -1;
    CHECK(pk_progress_get(context, &step, &seed) == PK_OK && step == (uint64_t)steps);
    pk_close(context);
    return loss;
}

static void check_training(void)
{
    const float first = loss_after(1, 1);
    const float later = loss_after(1, 50);
    CHECK(fabsf(first - logf(5.0f)) < 1e-5f); /* weights begin as zeros */
    CHECK(later < 0.8f * first);
    CHECK(loss_after(2, 50) == later && loss_after(5, 50) == later);
}

static void check_run_arguments(void)
{
    pk_context *context = opened(1);
    const pk_scalars scalars = {0.0f, 0, 1, 0};
    const void *const lacking[2] = {x, NULL};
    float rows[4] = {-1, -1, -1, -1};
    void *const outputs[4] = {rows, NULL, NULL, NULL};
    float loss = 0.0f;
    uint32_t entry = 0;
    CHECK(pk_entry_find(context, "evaluate", &entry) == PK_OK);
    CHECK(pk_run(context, entry, &scalars, batch, outputs) == PK_OK && rows[3] > 0.0f);
    CHECK(pk_run(context, entry, &scalars, batch, NULL) == PK_OK);
    CHECK(pk_run(context, entry, &scalars, lacking, outputs) == PK_E_ARGUMENT);
    CHECK(pk_run(context, entry, &scalars, NULL, outputs) == PK_E_ARGUMENT);
    CHECK(pk_run(context, entry, NULL, batch, outputs) == PK_E_ARGUMENT);
    CHECK(pk_run(context, 99, &scalars, batch, outputs) == PK_E_ARGUMENT);
    CHECK(pk_run(NULL, entry, &scalars, batch, outputs) == PK_E_ARGUMENT);
    CHECK(pk_train_step(context, 0.1f, lacking, &loss) == PK_E_ARGUMENT);
    CHECK(pk_train_step(context, 0.1f, batch, NULL) == PK_E_ARGUMENT);
    CHECK(pk_train_step(NULL, 0.1f, batch, &loss) == PK_E_ARGUMENT);
    pk_close(context);
}

static pk_status place_batch(void *user, uint32_t micro_batch)
{
    pk_context *context = user;
    uint32_t entry = 0;
    CHECK(pk_entry_find(context, "train_step", &entry) == PK_OK);
    /* In two pieces, the second one first. */
    const float *rows = x + micro_batch * 12u;
    CHECK(pk_input_write(context, entry, 0, 5, 7, rows + 5) == PK_OK);
    CHECK(pk_input_write(context, entry, 0, 0, 5, rows) == PK_OK);
    CHECK(pk_input_write(context, entry, 1, 0, 4, target + micro_batch * 4u) == PK_OK);
    return PK_OK;
}

static pk_status refuse_batch(void *user, uint32_t micro_batch)
{
    (void)user;
    (void)micro_batch;
    return PK_E_STOPPED;
}

static void check_placed(void)
{
    pk_context *one = opened(1);
    pk_context *other = opened(1);
    const pk_scalars scalars = {0.0f, 0, 1, 0};
    float rows[4] = {-1, -1, -1, -1};
    float placed[4] = {-2, -2, -2, -2};
    void *const outputs[4] = {rows, NULL, NULL, NULL};
    float losses[2] = {0};
    uint64_t step = 0;
    int64_t seed = 0;
    uint32_t entry = 0;
    for (int i = 0; i < 3; i++) {
        CHECK(pk_train_step(one, 0.1f, batch, &losses[0]) == PK_OK);
        CHECK(pk_train_step_placed(other, 0.1f, place_batch, other, &losses[1]) == PK_OK);
        CHECK(memcmp(&losses[0], &losses[1], sizeof(float)) == 0);
    }
    CHECK(pk_train_step_placed(other, 0.1f, refuse_batch, NULL, &losses[1]) == PK_E_STOPPED);
    CHECK(pk_train_step_placed(other, 0.1f, NULL, NULL, &losses[1]) == PK_E_ARGUMENT);
    CHECK(pk_progress_get(other, &step, &seed) == PK_OK && step == 3);
    CHECK(pk_entry_find(one, "evaluate", &entry) == PK_OK);
    CHECK(pk_run(one, entry, &scalars, batch, outputs) == PK_OK);
    CHECK(pk_input_write(other, entry, 0, 0, 12, x) == PK_OK);
    CHECK(pk_input_write(other, entry, 1, 0, 4, target) == PK_OK);
    CHECK(pk_run_placed(other, entry, &scalars) == PK_OK);
    CHECK(pk_output_read(other, entry, 0, 1, 3, placed + 1) == PK_OK);
    CHECK(pk_output_read(other, entry, 0, 0, 1, placed) == PK_OK);
    CHECK(memcmp(rows, placed, sizeof rows) == 0);
    CHECK(pk_input_write(other, entry, 0, 12, 1, x) == PK_E_SIZE);
    CHECK(pk_input_write(other, entry, 2, 0, 1, x) == PK_E_ARGUMENT);
    CHECK(pk_output_read(other, entry, 0, UINT64_MAX, 2, placed) == PK_E_SIZE);
    CHECK(pk_run_placed(other, 99, &scalars) == PK_E_ARGUMENT);
    pk_close(one);
    pk_close(other);
}

static void check_failing_kernel(void)
{
    pk_context *context = opened(2);
    const pk_scalars scalars = {0.0f, 0, 1, 0};
    float logits[20];
    void *const outputs[1] = {logits};
    uint32_t entry = 0;
    uint32_t step = 0;
    int32_t code = 0;
    CHECK(pk_entry_find(context, "predict", &entry) == PK_OK);
    CHECK(pk_run(context, entry, &scalars, batch, outputs) == PK_E_KERNEL);
    CHECK(pk_failed_step(context, &entry, &step, &code) == PK_OK && step == 1 && code == 7);
    pk_close(context);
}

static void check_nonfinite(void)
{
    pk_context *context = opened(1);
    const float bad[24] = {NAN};
    const void *const inputs[2] = {bad, target};
    uint32_t index = 99;
    float loss = 0.0f;
    CHECK(pk_state_check(context, &index) == PK_OK);
    CHECK(pk_train_step(context, 0.1f, inputs, &loss) == PK_E_NONFINITE && isnan(loss));
    const pk_status after = pk_micro_batches(context) == 1 ? PK_E_NONFINITE : PK_OK;
    CHECK(pk_state_check(context, &index) == after);
    /* A sum that was abandoned does not spoil the next step. */
    if (pk_micro_batches(context) > 1) {
        CHECK(pk_train_step(context, 0.1f, batch, &loss) == PK_OK && isfinite(loss));
        CHECK(pk_state_check(context, &index) == PK_OK);
    }
    pk_close(context);
}

static void count_step(void *user, uint32_t entry, uint32_t step, uint64_t begin, uint64_t end)
{
    (void)entry;
    uint32_t *next = user;
    CHECK(step == *next && end >= begin && begin > 0);
    *next += 1;
}

static void check_hook(void)
{
    pk_context *context = opened(1);
    pk_entry_info info;
    uint32_t entry = 0;
    uint32_t next = 0;
    const pk_scalars scalars = {0.0f, 0, 1, 0};
    CHECK(pk_entry_find(context, "evaluate", &entry) == PK_OK);
    CHECK(pk_entry_at(context, entry, &info) == PK_OK);
    CHECK(pk_set_step_hook(context, count_step, &next) == PK_OK);
    CHECK(pk_run(context, entry, &scalars, batch, NULL) == PK_OK && next == info.steps);
    CHECK(pk_set_step_hook(context, NULL, NULL) == PK_OK);
    CHECK(pk_run(context, entry, &scalars, batch, NULL) == PK_OK && next == info.steps);
    pk_close(context);
}

/* Training steps are recorded, in order and with their threads; other entries are not. */
static void check_recording(uint32_t threads)
{
    enum { ROOM = 64 };
    static pk_call calls[ROOM];
    static pk_share shares[ROOM * 4];
    pk_recording recording = {calls, shares, ROOM, 0};
    const pk_recording nowhere = {NULL, NULL, ROOM, 0};
    pk_context *context = opened(threads);
    pk_entry_info info;
    uint32_t entry = 0;
    float loss = 0.0f;
    const pk_scalars scalars = {0.0f, 0, 1, 0};
    CHECK(pk_record(NULL, &recording) == PK_E_ARGUMENT);
    CHECK(pk_record(context, (pk_recording *)&nowhere) == PK_E_ARGUMENT);
    CHECK(pk_record(context, &recording) == PK_OK);
    CHECK(pk_entry_find(context, "evaluate", &entry) == PK_OK);
    CHECK(pk_run(context, entry, &scalars, batch, NULL) == PK_OK && recording.count == 0);
    CHECK(pk_train_step(context, 0.1f, batch, &loss) == PK_OK);
    CHECK(pk_entry_find(context, "train_step", &entry) == PK_OK);
    CHECK(pk_entry_at(context, entry, &info) == PK_OK);
    CHECK(recording.count >= (uint64_t)info.steps * pk_micro_batches(context));
    for (uint64_t i = 0; i < recording.count; i++) {
        uint64_t busy = 0;
        CHECK(calls[i].begin_ns > 0 && calls[i].end_ns >= calls[i].begin_ns);
        CHECK(i == 0 || calls[i].begin_ns >= calls[i - 1].end_ns);
        CHECK(calls[i].entry != entry || calls[i].step == i % info.steps);
        for (uint32_t t = 0; t < threads; t++) {
            const pk_share *share = &shares[i * threads + t];
            CHECK(share->busy_ns <= share->end_ns - share->begin_ns);
            CHECK(share->end_ns == 0 || (share->begin_ns >= calls[i].begin_ns &&
                                         share->end_ns <= calls[i].end_ns));
            busy += share->end_ns;
        }
        CHECK(busy > 0);
    }
    /* Where there is no room nothing is written, and the step is taken all the same. */
    const uint64_t whole = recording.count;
    recording.capacity = whole + 1u;
    CHECK(pk_train_step(context, 0.1f, batch, &loss) == PK_OK && recording.count == whole + 1u);
    CHECK(pk_record(context, NULL) == PK_OK);
    recording.count = 0;
    CHECK(pk_train_step(context, 0.1f, batch, &loss) == PK_OK && recording.count == 0);
    pk_close(context);
}

static void check_seeds(void)
{
    CHECK(pk_step_seed(0, 1, 0) == pk_step_seed(0, 1, 0));
    CHECK(pk_step_seed(0, 1, 0) != pk_step_seed(0, 2, 0));
    CHECK(pk_step_seed(0, 2, 0) != pk_step_seed(1, 1, 0));
    CHECK(pk_step_seed(0, 1, 0) != pk_step_seed(0, 1, 1));
    CHECK(pk_step_seed(-5, 1, 0) >= 0);
    pk_context *context = opened(1);
    uint32_t index = 0;
    int64_t seen = -1;
    float loss = 0.0f;
    CHECK(pk_progress_set(context, 41, 17) == PK_OK);
    CHECK(pk_train_step(context, 0.0f, batch, &loss) == PK_OK);
    CHECK(pk_tensor_find(context, "last_seed", &index) == PK_OK);
    CHECK(pk_tensor_read(context, index, 0, 1, &seen) == PK_OK);
    CHECK(seen == pk_step_seed(17, 42, pk_micro_batches(context) - 1u));
    pk_close(context);
}

static void check_bad_programs(void)
{
    pk_context *context = NULL;
    const pk_frozen frozen = frozen_file();
    pk_program program = pk_linked_program;
    program.abi_version = 0;
    CHECK(pk_open_program(&program, 1, &frozen, &context) == PK_E_PROGRAM && context == NULL);
    program = pk_linked_program;
    program.state_bytes = 8; /* tensors beyond the end */
    CHECK(pk_open_program(&program, 1, &frozen, &context) == PK_E_PROGRAM);
    program = pk_linked_program;
    program.kernel_count = 1;
    CHECK(pk_open_program(&program, 1, &frozen, &context) == PK_E_PROGRAM);
    program = pk_linked_program;
    program.arena_bytes = UINT64_C(1) << 55; /* more than an address space */
    CHECK(pk_open_program(&program, 1, &frozen, &context) == PK_E_MEMORY);
}

static void check_fork(void)
{
    pk_context *context = opened(2);
    const pid_t child = fork();
    if (child == 0) {
        float loss = 0.0f;
        const int right = pk_train_step(context, 0.1f, batch, &loss) == PK_E_FORKED;
        pk_close(context);
        _exit(right ? 0 : 1);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    pk_close(context);
}

static void *train_alone(void *result)
{
    *(float *)result = loss_after(2, 50);
    return NULL;
}

static void check_contexts_are_independent(void)
{
    pthread_t threads[3];
    float losses[3] = {0};
    const float expected = loss_after(1, 50);
    for (int i = 0; i < 3; i++) {
        CHECK(pthread_create(&threads[i], NULL, train_alone, &losses[i]) == 0);
    }
    for (int i = 0; i < 3; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(losses[i] == expected);
    }
}

int main(void)
{
    check_status_texts();
    check_null_arguments();
    check_tables();
    check_layouts();
    check_frozen();
    check_bad_frozen_files();
    if (pk_linked_program.micro_batches == 1) {
        check_training();
        check_contexts_are_independent();
        check_run_arguments();
        check_hook();
        check_recording(1);
        check_recording(3);
    }
    check_placed();
    check_failing_kernel();
    check_nonfinite();
    check_seeds();
    check_bad_programs();
    check_fork();
    return failures > 255 ? 255 : failures;
}
