/* The thread pool under load and after pauses; built with -fsanitize=thread by test_c.py. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <time.h>

#include "pool.h"

enum { TASKS = 37 };

typedef struct job {
    long *counts; /* plain memory: a race on it is what the sanitizer must not find */
    int failing;
} job;

static int add(void *argument, int task, int tasks)
{
    const job *j = argument;
    j->counts[task] += tasks;
    return task == j->failing ? 40 + task : 0;
}

static int failures;

static void expect(int right, const char *what, unsigned threads)
{
    if (!right) {
        failures++;
        printf("%s, with %u threads\n", what, threads);
    }
}

static void check(unsigned threads, int rounds)
{
    static pk_pool pool;
    static pk_worker workers[16];
    long counts[TASKS] = {0};
    job j = {counts, -1};
    expect(pk_pool_start(&pool, workers, threads) == PK_OK, "the pool did not start", threads);
    for (int i = 0; i < rounds; i++) {
        expect(pk_pool_run(&pool, add, &j, TASKS) == 0, "a job failed", threads);
        if (i % 64 == 0) { /* long enough for the workers to sleep */
            nanosleep(&(struct timespec){0, 2000000}, NULL);
        }
    }
    for (int i = 0; i < TASKS; i++) {
        expect(counts[i] == (long)TASKS * rounds, "a task ran too often or too seldom", threads);
    }
    j.failing = 11;
    expect(pk_pool_run(&pool, add, &j, TASKS) == 51, "a failure was lost", threads);
    j.failing = -1;
    expect(pk_pool_run(&pool, add, &j, TASKS) == 0, "a failure was kept", threads);
    expect(pk_pool_run(&pool, add, &j, 1) == 0, "one task", threads);
    expect(pk_pool_run(&pool, add, &j, 0) == 0, "no task", threads);
    pk_pool_stop(&pool);
}

static void check_leaving(void)
{
    cpu_set_t allowed;
    cpu_set_t after;
    cpu_set_t here;
    (void)sched_getaffinity(0, sizeof(allowed), &allowed);
    if (CPU_COUNT(&allowed) < 2) {
        return;
    }
    const int processor = sched_getcpu();
    CPU_ZERO(&here);
    CPU_SET((size_t)processor, &here);
    (void)sched_setaffinity(0, sizeof(here), &here);
    (void)sched_setaffinity(0, sizeof(allowed), &allowed);
    pk_leave_processor(processor);
    expect(sched_getcpu() != processor, "it stayed where it was to leave", 1);
    (void)sched_getaffinity(0, sizeof(after), &after);
    expect(CPU_EQUAL(&allowed, &after), "it may not run where it might before", 1);
}

int main(void)
{
    check_leaving();
    check(1, 100);
    check(2, 2000);
    check(5, 500);
    return failures;
}
