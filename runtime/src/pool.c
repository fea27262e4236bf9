/* The thread pool: fixed shares, claimed; spin a little, then sleep.
 *
 * A loop is cut into one share per thread, always alike, so that results do not depend on timing
 * and a thread finds in its cache what it wrote a kernel ago. A share whose thread has not come
 * yet, because it sleeps or the system runs something else, is claimed by a thread that is idle:
 * nobody waits for a wake-up, and on a busy machine the caller does the work alone.
 *
 * Between two parallel kernels lie microseconds, less than a wake-up costs, so an idle worker
 * first watches the ticket. It sleeps when nothing came, so that an open artifact that is not
 * running costs nothing.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "pool.h"

#if defined(__linux__)
#include <sched.h>
#endif
#include <stddef.h>
#include <time.h>

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

static uint32_t number_of(uint64_t ticket)
{
    return (uint32_t)(ticket >> 32);
}

static uint32_t unclaimed_of(uint64_t ticket)
{
    return (uint32_t)ticket;
}

/* The bit of the thread's own share if nobody has it, else of any. */
static uint32_t choose(uint32_t unclaimed, uint32_t thread)
{
    const uint32_t own = UINT32_C(1) << thread;
    return (unclaimed & own) != 0u ? own : unclaimed & (~unclaimed + 1u);
}

static uint32_t index_of(uint32_t bit)
{
    uint32_t index = 0;
    while ((bit >> index) != 1u) {
        index++;
    }
    return index;
}

static void finish_share(pk_pool *pool)
{
    if (atomic_fetch_sub(&pool->running, 1u) == 1u && atomic_load(&pool->waiting)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_signal(&pool->done);
        pthread_mutex_unlock(&pool->lock);
    }
}

uint64_t pk_now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static void note_share(pk_share *share, uint64_t begin)
{
    const uint64_t end = pk_now_ns();
    share->begin_ns = share->begin_ns == 0u ? begin : share->begin_ns;
    share->end_ns = end;
    share->busy_ns += end - begin;
}

/* Claim and run shares of the present job until none is left. */
static void run_shares(pk_pool *pool, uint32_t thread)
{
    uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    while (unclaimed_of(ticket) != 0u) {
        const uint32_t bit = choose(unclaimed_of(ticket), thread);
        /* The fields may already be the next job's; then the claim fails. While a share is
         * unclaimed its job is not finished, and so the fields are not written. */
        const pk_task task = atomic_load_explicit(&pool->task, memory_order_relaxed);
        void *job = atomic_load_explicit(&pool->job, memory_order_relaxed);
        const int tasks = atomic_load_explicit(&pool->tasks, memory_order_relaxed);
        if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &ticket, ticket & ~(uint64_t)bit,
                                                   memory_order_acq_rel, memory_order_acquire)) {
            continue;
        }
        pk_share *share = pool->shares == NULL ? NULL : &pool->shares[thread];
        const uint64_t begin = share == NULL ? 0u : pk_now_ns();
        for (int i = (int)index_of(bit); i < tasks; i += (int)pool->threads) {
            const int code = task(job, i, tasks);
            if (code != 0) {
                atomic_store_explicit(&pool->failure, code, memory_order_relaxed);
            }
        }
        if (share != NULL) {
            note_share(share, begin);
        }
        finish_share(pool);
        ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    }
}

static int this_processor(void)
{
#if defined(__linux__)
    return sched_getcpu();
#else
    return -1;
#endif
}

void pk_leave_processor(int processor)
{
#if defined(__linux__)
    cpu_set_t allowed;
    if (processor < 0 || processor != this_processor() ||
        sched_getaffinity(0, sizeof(allowed), &allowed) != 0 || CPU_COUNT(&allowed) < 2) {
        return;
    }
    cpu_set_t others = allowed;
    CPU_CLR((size_t)processor, &others);
    if (sched_setaffinity(0, sizeof(others), &others) == 0) {
        (void)sched_setaffinity(0, sizeof(allowed), &allowed);
    }
#else
    (void)processor;
#endif
}

static uint32_t await_job(pk_pool *pool, uint32_t seen)
{
    for (int i = 0; i < SPINS; i++) {
        const uint32_t now =
            number_of(atomic_load_explicit(&pool->ticket, memory_order_acquire));
        if (now != seen) {
            return now;
        }
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    /* Sequentially consistent: either this thread sees the new ticket or the caller, who wrote
     * it first, sees this sleeper. */
    atomic_fetch_add(&pool->sleepers, 1u);
    uint32_t now = number_of(atomic_load(&pool->ticket));
    while (now == seen) {
        pthread_cond_wait(&pool->wake, &pool->lock);
        now = number_of(atomic_load(&pool->ticket));
    }
    atomic_fetch_sub(&pool->sleepers, 1u);
    pthread_mutex_unlock(&pool->lock);
    /* Woken where the caller runs, it gets its turn when the system thinks fit, which may be after
     * the step: the caller does not wait. */
    pk_leave_processor(atomic_load_explicit(&pool->caller, memory_order_relaxed));
    return now;
}

static void *worker_main(void *argument)
{
    const pk_worker *self = argument;
    pk_pool *pool = self->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = await_job(pool, seen);
        if (atomic_load_explicit(&pool->stop, memory_order_acquire)) {
            return NULL;
        }
        run_shares(pool, self->number);
    }
}

static void publish(pk_pool *pool, uint32_t shares)
{
    const uint64_t number = (uint64_t)number_of(atomic_load(&pool->ticket)) + 1u;
    atomic_store(&pool->ticket, (number << 32) | shares);
    if (atomic_load(&pool->sleepers) != 0u) {
        atomic_store_explicit(&pool->caller, this_processor(), memory_order_relaxed);
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
    const uint32_t shares = (uint32_t)tasks < pool->threads ? (uint32_t)tasks : pool->threads;
    atomic_store_explicit(&pool->task, task, memory_order_relaxed);
    atomic_store_explicit(&pool->job, job, memory_order_relaxed);
    atomic_store_explicit(&pool->tasks, tasks, memory_order_relaxed);
    atomic_store_explicit(&pool->failure, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->running, shares, memory_order_relaxed);
    publish(pool, UINT32_MAX >> (PK_MAX_THREADS - shares));
    run_shares(pool, 0);
    await_end(pool);
    return atomic_load_explicit(&pool->failure, memory_order_relaxed);
}

static void init(pk_pool *pool, pk_worker *workers, uint32_t threads)
{
    pool->threads = threads;
    pool->started = 0;
    pool->workers = workers;
    pool->shares = NULL;
    atomic_init(&pool->task, (pk_task)NULL);
    atomic_init(&pool->job, NULL);
    atomic_init(&pool->tasks, 0);
    atomic_init(&pool->failure, 0);
    atomic_init(&pool->ticket, 0u);
    atomic_init(&pool->sleepers, 0u);
    atomic_init(&pool->caller, -1);
    atomic_init(&pool->stop, false);
    atomic_init(&pool->running, 0u);
    atomic_init(&pool->waiting, false);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->done, NULL);
}

pk_status pk_pool_start(pk_pool *pool, pk_worker *workers, uint32_t threads)
{
    init(pool, workers, threads);
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
    publish(pool, 0);
    for (uint32_t i = 0; i < pool->started; i++) {
        (void)pthread_join(pool->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
}
