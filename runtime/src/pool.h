/* pool.h: a fixed set of threads that run the parallel loops of kernels. */
#ifndef PK_POOL_H
#define PK_POOL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pock_core.h"

/* As many as the ticket has bits for. */
enum { PK_MAX_THREADS = 32 };

/* One task of a job; 0 is success. */
typedef int (*pk_task)(void *job, int task, int tasks);

typedef struct pk_pool pk_pool;

typedef struct pk_worker {
    pk_pool *pool;
    pthread_t thread;
    uint32_t number; /* 1 and up; the caller of pk_pool_run is 0 */
} pk_worker;

struct pk_pool {
    /* The job; written before its ticket is published, read after. */
    _Atomic(pk_task) task;
    _Atomic(void *) job;
    atomic_int tasks;
    atomic_int failure;
    uint32_t threads;
    uint32_t started; /* workers that exist */
    pk_worker *workers;
    pk_share *shares; /* one per thread, where its time is noted; NULL: nowhere. Written before a
                       * job is published, as the job is. */
    /* Number of the job in the upper half; below, one bit for each share not yet claimed. */
    _Alignas(64) _Atomic(uint64_t) ticket;
    atomic_uint sleepers;
    atomic_int caller; /* the processor where it was when it last woke somebody, -1 unknown */
    atomic_bool stop;
    /* Shares that are not finished. Apart from the ticket, which others are watching. */
    _Alignas(64) atomic_uint running;
    atomic_bool waiting;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_cond_t done;
};

/* `workers` has room for threads - 1. */
pk_status pk_pool_start(pk_pool *pool, pk_worker *workers, uint32_t threads);
void pk_pool_stop(pk_pool *pool);

/* Run tasks 0 .. tasks-1 and wait for all of them. Share t is tasks t, t + threads and so on; it
 * belongs to thread t, unless another thread has nothing to do before t has begun.
 * Returns 0 or what one of the failing tasks returned. */
int pk_pool_run(pk_pool *pool, pk_task task, void *job, int tasks);

/* If the calling thread runs there, move it to any other processor that it may use. */
void pk_leave_processor(int processor);

uint64_t pk_now_ns(void); /* CLOCK_MONOTONIC */

#endif
