/* What generated kernels expect from their host: function pointers in slots.
 *
 * TVM's code generator puts the slots into every object that needs them, as weak symbols. They
 * are defined here, hidden, so that the linker binds the kernels of this library to this runtime
 * and to nothing else that the process may have loaded. A parallel loop calls the first slot. The
 * other two would allocate a temporary, which never happens: every workspace has its place in the
 * arena.
 */
#include <stddef.h>

#include "context.h"

typedef struct parallel_env {
    void *sync_handle;
    int32_t tasks;
} parallel_env;

typedef int (*parallel_body)(int task, parallel_env *env, void *closure);
typedef int (*launch_function)(parallel_body body, void *closure, int tasks);
typedef void *(*allocate_function)(int device_type, int device, uint64_t nbytes, int code,
                                   int bits);
typedef int (*free_function)(int device_type, int device, void *memory);

#define PK_HIDDEN __attribute__((visibility("hidden")))

/* The names are TVM's. */
extern PK_HIDDEN launch_function __TVMBackendParallelLaunch;
extern PK_HIDDEN allocate_function __TVMBackendAllocWorkspace;
extern PK_HIDDEN free_function __TVMBackendFreeWorkspace;

static _Thread_local pk_pool *current_pool;

typedef struct parallel_job {
    parallel_body body;
    void *closure;
} parallel_job;

static int run_task(void *argument, int task, int tasks)
{
    const parallel_job *job = argument;
    parallel_env env = {NULL, (int32_t)tasks};
    return job->body(task, &env, job->closure);
}

/* `tasks` is 0 where the kernel leaves the number to its host. */
static int launch(parallel_body body, void *closure, int tasks)
{
    pk_pool *pool = current_pool;
    parallel_job job = {body, closure};
    if (tasks <= 0) {
        tasks = pool == NULL ? 1 : (int)pool->threads;
    }
    return pk_pool_run(pool, run_task, &job, tasks);
}

static void *refuse_allocate(int device_type, int device, uint64_t nbytes, int code, int bits)
{
    (void)device_type;
    (void)device;
    (void)nbytes;
    (void)code;
    (void)bits;
    return NULL;
}

static int refuse_free(int device_type, int device, void *memory)
{
    (void)device_type;
    (void)device;
    (void)memory;
    return -1;
}

launch_function __TVMBackendParallelLaunch = launch;
allocate_function __TVMBackendAllocWorkspace = refuse_allocate;
free_function __TVMBackendFreeWorkspace = refuse_free;

void pk_set_current_pool(pk_pool *pool)
{
    current_pool = pool;
}
