/* Opening and closing: one mapping holds the context, its tables, the state and the arena; a
 * second one is the file of frozen tensors. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "context.h"

#if defined(__linux__)
#include <sched.h>
#endif
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Offsets of the parts within the mapping. */
typedef struct layout {
    uint64_t entries; /* void **[entry_count] */
    uint64_t args;
    uint64_t workers;
    uint64_t scalars;
    uint64_t state;
    uint64_t arena;
    uint64_t total;
} layout;

static uint64_t align_up(uint64_t bytes, uint64_t align)
{
    return (bytes + align - 1u) / align * align;
}

static uint64_t page_bytes(void)
{
    const long bytes = sysconf(_SC_PAGESIZE);
    return bytes > 0 ? (uint64_t)bytes : 4096u;
}

static uint32_t usable_processors(void)
{
    long count = 0;
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        count = CPU_COUNT(&set);
    }
#endif
    if (count <= 0) {
        count = sysconf(_SC_NPROCESSORS_ONLN);
    }
    return count <= 0 ? 1u : (uint32_t)count;
}

static uint32_t choose_threads(uint32_t asked)
{
    const uint32_t threads = asked == 0u ? usable_processors() : asked;
    return threads > PK_MAX_THREADS ? PK_MAX_THREADS : threads;
}

static layout lay_out(const pk_program *program, uint32_t threads)
{
    uint64_t places = 0;
    for (uint32_t i = 0; i < program->entry_count; i++) {
        places += program->entries[i].place_count;
    }
    layout l;
    l.entries = align_up(sizeof(pk_context), PK_ALIGN);
    l.args = align_up(l.entries + program->entry_count * sizeof(void **), PK_ALIGN);
    l.workers = align_up(l.args + places * sizeof(void *), PK_ALIGN);
    l.scalars = align_up(l.workers + (threads - 1u) * sizeof(pk_worker), PK_ALIGN);
    /* State and arena begin on pages: an arena page is never shared with what lasts. */
    l.state = align_up(l.scalars + program->scalar_bytes, page_bytes());
    l.arena = align_up(l.state + program->state_bytes, page_bytes());
    l.total = align_up(l.arena + program->arena_bytes, page_bytes());
    return l;
}

static bool place_ok(const pk_program *program, uint64_t place, uint64_t nbytes)
{
    const uint64_t sizes[PK_SPACES] = {
        [PK_SPACE_STATE] = program->state_bytes,
        [PK_SPACE_ARENA] = program->arena_bytes,
        [PK_SPACE_SCALAR] = program->scalar_bytes,
        [PK_SPACE_FROZEN] = program->frozen_bytes,
    };
    const uint32_t space = PK_PLACE_SPACE(place);
    const uint64_t offset = PK_PLACE_OFFSET(place);
    return space < PK_SPACES && offset <= sizes[space] && nbytes <= sizes[space] - offset;
}

static bool type_ok(const pk_tensor *tensor)
{
    uint64_t size = 1;
    if (tensor->rank > PK_MAX_RANK) {
        return false;
    }
    for (uint32_t d = 0; d < tensor->rank; d++) {
        size *= (uint64_t)tensor->shape[d];
        if (tensor->order != NULL && tensor->order[d] >= tensor->rank) {
            return false;
        }
    }
    return tensor->nbytes == size * pk_dtype_bytes(tensor->dtype);
}

static bool values_ok(const pk_program *program, const pk_value *values, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!type_ok(&values[i].tensor) ||
            !place_ok(program, values[i].place, values[i].tensor.nbytes)) {
            return false;
        }
    }
    return true;
}

static bool steps_ok(const pk_program *program, const pk_entry *entry)
{
    for (uint32_t i = 0; i < entry->step_count; i++) {
        const pk_step step = entry->steps[i];
        if (step.kernel >= program->kernel_count || step.first_arg > entry->place_count ||
            program->kernels[step.kernel].arity > entry->place_count - step.first_arg) {
            return false;
        }
    }
    for (uint32_t i = 0; i < entry->place_count; i++) {
        if (!place_ok(program, entry->places[i], 0)) {
            return false;
        }
    }
    return true;
}

static bool program_ok(const pk_program *program)
{
    if (program->abi_version != PK_ABI_VERSION || program->micro_batches == 0u ||
        !values_ok(program, program->tensors, program->tensor_count)) {
        return false;
    }
    for (uint32_t i = 0; i < program->entry_count; i++) {
        const pk_entry *entry = &program->entries[i];
        if (!steps_ok(program, entry) ||
            !values_ok(program, entry->inputs, entry->input_count) ||
            !values_ok(program, entry->scalars, entry->scalar_count) ||
            !values_ok(program, entry->outputs, entry->output_count)) {
            return false;
        }
    }
    return true;
}

static pk_memory measure(const pk_program *program, const layout *l)
{
    pk_memory memory;
    memory.state_bytes = program->state_bytes;
    memory.arena_bytes = program->arena_bytes;
    memory.runtime_bytes = l->scalars + program->scalar_bytes;
    memory.total_bytes = l->total;
    memory.frozen_bytes = program->frozen_bytes;
    return memory;
}

pk_status pk_program_memory(const pk_program *program, uint32_t threads, pk_memory *memory)
{
    if (program == NULL || memory == NULL) {
        return PK_E_ARGUMENT;
    }
    const layout l = lay_out(program, choose_threads(threads));
    *memory = measure(program, &l);
    return PK_OK;
}

pk_status pk_memory_needed(uint32_t threads, pk_memory *memory)
{
    return pk_program_memory(&pk_linked_program, threads, memory);
}

static void resolve_places(pk_context *context, uint8_t *base, const layout *l)
{
    const pk_program *program = context->program;
    context->args = (void ***)(void *)(base + l->entries);
    void **next = (void **)(void *)(base + l->args);
    for (uint32_t i = 0; i < program->entry_count; i++) {
        const pk_entry *entry = &program->entries[i];
        context->args[i] = next;
        for (uint32_t j = 0; j < entry->place_count; j++) {
            *next++ = pk_address(context, entry->places[j]);
        }
    }
}

static void *map_memory(uint64_t bytes)
{
    if (bytes > SIZE_MAX) {
        return NULL;
    }
    void *base = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                      -1, 0);
    if (base == MAP_FAILED) {
        return NULL;
    }
#if defined(MADV_HUGEPAGE)
    /* Fewer TLB misses; only a hint. */
    (void)madvise(base, (size_t)bytes, MADV_HUGEPAGE);
#endif
    return base;
}

/* Tell the system that of these tensors only single pages will be wanted. Verifying the file has
 * loaded all of it, and what is there is mapped with its neighbours: so it is let go first. */
static void advise_gathered(const pk_context *context, const pk_frozen *frozen)
{
#if defined(MADV_RANDOM) && defined(POSIX_FADV_DONTNEED)
    const uint64_t page = page_bytes();
    for (uint32_t i = 0; i < context->program->tensor_count; i++) {
        const pk_value *value = &context->program->tensors[i];
        const uint32_t both = PK_FROZEN | PK_GATHERED;
        if ((value->tensor.flags & both) != both ||
            PK_PLACE_SPACE(value->place) != PK_SPACE_FROZEN) {
            continue;
        }
        const uint64_t begin = frozen->offset + PK_PLACE_OFFSET(value->place);
        const uint64_t first = align_up(begin, page);
        const uint64_t end = (begin + value->tensor.nbytes) / page * page;
        if (first < end) {
            uint8_t *at = (uint8_t *)context->frozen_mapping + first;
            (void)posix_fadvise(frozen->file, (off_t)first, (off_t)(end - first),
                                POSIX_FADV_DONTNEED);
            (void)madvise(at, (size_t)(end - first), MADV_RANDOM);
        }
    }
#else
    (void)context;
    (void)frozen;
#endif
}

/* The file from its beginning: an offset that is no multiple of a page cannot be mapped. */
static pk_status map_frozen(pk_context *context, const pk_frozen *frozen)
{
    const uint64_t bytes = context->program->frozen_bytes;
    if (bytes == 0u) {
        context->spaces[PK_SPACE_FROZEN] = context->spaces[PK_SPACE_STATE]; /* for empty tensors */
        return PK_OK;
    }
    struct stat info;
    if (frozen == NULL || frozen->offset % PK_ALIGN != 0u || fstat(frozen->file, &info) != 0 ||
        info.st_size < 0 || (uint64_t)info.st_size < bytes ||
        (uint64_t)info.st_size - bytes < frozen->offset ||
        frozen->offset + bytes > SIZE_MAX) {
        return PK_E_FROZEN;
    }
    const uint64_t mapped = frozen->offset + bytes;
    void *base = mmap(NULL, (size_t)mapped, PROT_READ, MAP_PRIVATE, frozen->file, 0);
    if (base == MAP_FAILED) {
        return PK_E_FROZEN;
    }
    context->frozen_mapping = base;
    context->frozen_mapping_bytes = mapped;
    context->spaces[PK_SPACE_FROZEN] = (uint8_t *)base + frozen->offset;
    advise_gathered(context, frozen);
    return PK_OK;
}

pk_status pk_frozen_unprotect(pk_context *context)
{
    if (!context->frozen_changed) {
        if (mprotect(context->frozen_mapping, (size_t)context->frozen_mapping_bytes,
                     PROT_READ | PROT_WRITE) != 0) {
            return PK_E_MEMORY;
        }
        context->frozen_changed = true;
    }
    return PK_OK;
}

uint32_t pk_frozen_changed(const pk_context *context)
{
    return context != NULL && context->frozen_changed ? 1u : 0u;
}

pk_status pk_open_program(const pk_program *program, uint32_t threads, const pk_frozen *frozen,
                          pk_context **context)
{
    if (program == NULL || context == NULL) {
        return PK_E_ARGUMENT;
    }
    *context = NULL;
    if (!program_ok(program)) {
        return PK_E_PROGRAM;
    }
    threads = choose_threads(threads);
    const layout l = lay_out(program, threads);
    uint8_t *base = map_memory(l.total);
    if (base == NULL) {
        return PK_E_MEMORY;
    }
    pk_context *opened = (pk_context *)(void *)base;
    opened->program = program;
    opened->mapping = base;
    opened->memory = measure(program, &l);
    opened->process = getpid();
    opened->spaces[PK_SPACE_STATE] = base + l.state;
    opened->spaces[PK_SPACE_ARENA] = base + l.arena;
    opened->spaces[PK_SPACE_SCALAR] = base + l.scalars;
    pk_status status = map_frozen(opened, frozen);
    if (status == PK_OK) {
        resolve_places(opened, base, &l);
        status = pk_pool_start(&opened->pool, (pk_worker *)(void *)(base + l.workers), threads);
    }
    if (status != PK_OK) {
        pk_close(opened);
        return status;
    }
    *context = opened;
    return PK_OK;
}

pk_status pk_open(uint32_t threads, const pk_frozen *frozen, pk_context **context)
{
    return pk_open_program(&pk_linked_program, threads, frozen, context);
}

void pk_close(pk_context *context)
{
    if (context == NULL) {
        return;
    }
    if (context->process == getpid()) {
        pk_pool_stop(&context->pool);
    }
    if (context->frozen_mapping != NULL) {
        (void)munmap(context->frozen_mapping, (size_t)context->frozen_mapping_bytes);
    }
    (void)munmap(context->mapping, (size_t)context->memory.total_bytes);
}

pk_status pk_memory_used(const pk_context *context, pk_memory *memory)
{
    if (context == NULL || memory == NULL) {
        return PK_E_ARGUMENT;
    }
    *memory = context->memory;
    return PK_OK;
}

uint32_t pk_threads(const pk_context *context)
{
    return context == NULL ? 0u : context->pool.threads;
}

pk_status pk_progress_get(const pk_context *context, uint64_t *step, int64_t *seed)
{
    if (context == NULL || step == NULL || seed == NULL) {
        return PK_E_ARGUMENT;
    }
    *step = context->step;
    *seed = context->seed;
    return PK_OK;
}

pk_status pk_progress_set(pk_context *context, uint64_t step, int64_t seed)
{
    if (context == NULL) {
        return PK_E_ARGUMENT;
    }
    context->step = step;
    context->seed = seed;
    return PK_OK;
}
