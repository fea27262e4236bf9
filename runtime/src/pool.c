/* The thread pool: static partition, spin a little, then sleep.
 *
 * Between two parallel kernels lie microseconds, far less than a wake-up costs, so an idle worker
 * first watches `generation`. It sleeps when nothing came, so that an open artifact that is not
 * running costs nothing.
 */
#include "pool.h"

#include <stdbool.h>
#include <stddef.h>

/* About 50 us on the machines measured: long against the gap between kernels of one step. */
enum { SPINS = 4000 };

/* Kernels keep at most a few KB on the stack; only touched pages count. */
enum { STACK_BYTES = 512 * 1024 };

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ __volatile__("yield" ::: "memory");
#endif
}

static void run_share(pk_pool *pool, uint32_t number)
{
    const int stride = (int)pool->threads;
    for (int task = (int)number; task < pool->tasks; task += stride) {
        const int code = pool->task(pool->job, task, pool->tasks);
        if (code != 0) {
            atomic_store_explicit(&pool->failure, code, memory_order_relaxed);
        }
    }
}

static unsigned await_work(pk_pool *pool, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        const unsigned now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        if (now != seen) {
            return now;
        }
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    /* Sequentially consistent: either this load sees the new generation or the caller, who wrote
     * it first, sees this sleeper. */
    atomic_fetch_add(&pool->sleepers, 1u);
    unsigned now = atomic_load(&pool->generation);
    while (now == seen) {
        pthread_cond_wait(&pool->wake, &pool->lock);
        now = atomic_load(&pool->generation);
    }
    atomic_fetch_sub(&pool->sleepers, 1u);
    pthread_mutex_unlock(&pool->lock);
    return now;
}

static void announce_end(pk_pool *pool)
{
    if (atomic_fetch_sub(&pool->running, 1u) != 1u) {
        return;
    }
    if (atomic_load(&pool->waiting)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->lock);
    }
}

static void *worker_main(void *argument)
{
    pk_worker *self = argument;
    pk_pool *pool = self->pool;
    unsigned seen = 0;
    for (;;) {
        seen = await_work(pool, seen);
        if (atomic_load_explicit(&pool->stop, memory_order_acquire)) {
            return NULL;
        }
        run_share(pool, self->number);
        announce_end(pool);
    }
}

static void begin(pk_pool *pool)
{
    atomic_fetch_add(&pool->generation, 1u);
    if (atomic_load(&pool->sleepers) != 0u) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
    }
}

static void await_end(pk_pool *pool)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&pool->running, memory_order_acquire) == 0u) {
            return;
        }
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->waiting, true);
    while (atomic_load(&pool->running) != 0u) {
        pthread_cond_wait(&pool->done, &pool->lock);
    }
    atomic_store(&pool->waiting, false);
    pthread_mutex_unlock(&pool->lock);
}

int pk_pool_run(pk_pool *pool, pk_task task, void *job, int tasks)
{
    if (pool == NULL || pool->threads <= 1u || tasks <= 1) {
        for (int i = 0; i < tasks; i++) {
            const int code = task(job, i, tasks);
            if (code != 0) {
                return code;
            }
        }
        return 0;
    }
    pool->task = task;
    pool->job = job;
    pool->tasks = tasks;
    atomic_store_explicit(&pool->failure, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->running, pool->threads - 1u, memory_order_relaxed);
    begin(pool);
    run_share(pool, 0);
    await_end(pool);
    return atomic_load_explicit(&pool->failure, memory_order_relaxed);
}

pk_status pk_pool_start(pk_pool *pool, pk_worker *workers, uint32_t threads)
{
    pool->threads = threads;
    pool->started = 0;
    pool->workers = workers;
    atomic_init(&pool->failure, 0);
    atomic_init(&pool->generation, 0u);
    atomic_init(&pool->sleepers, 0u);
    atomic_init(&pool->stop, false);
    atomic_init(&pool->running, 0u);
    atomic_init(&pool->waiting, false);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) {
        return PK_E_THREADS;
    }
    /* A libc that wants more keeps its default. */
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int code = 0;
    for (uint32_t i = 1; i < threads && code == 0; i++) {
        pk_worker *worker = &workers[i - 1u];
        worker->pool = pool;
        worker->number = i;
        code = pthread_create(&worker->thread, &attributes, worker_main, worker);
        pool->started += code == 0 ? 1u : 0u;
    }
    (void)pthread_attr_destroy(&attributes);
    return code == 0 ? PK_OK : PK_E_THREADS;
}

void pk_pool_stop(pk_pool *pool)
{
    atomic_store(&pool->stop, true);
    begin(pool);
    for (uint32_t i = 0; i < pool->started; i++) {
        (void)pthread_join(pool->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
}
