/* cli.h: pock-run, the command on the device. The only part of the runtime that prints. */
#ifndef POCK_CLI_H
#define POCK_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pock.h"

/* 0 is success; above it are those of shells. */
enum { EXIT_ERROR = 1, EXIT_USAGE = 2, EXIT_SIGNALLED = 128 };

typedef enum option_kind { OPTION_FLAG, OPTION_COUNT, OPTION_INT, OPTION_NUMBER, OPTION_TEXT } option_kind;

/* `value` is a bool, uint64_t, int64_t, double or const char *. `least` holds for a count. */
typedef struct option {
    const char *name;
    option_kind kind;
    void *value;
    uint64_t least;
} option;

/* Read the arguments behind the verb: one artifact (none if `artifact` is NULL), and options. On a
 * mistake the reason is printed and false returned. */
bool read_options(int argc, char **argv, const option *options, size_t count,
                  const char **artifact);

/* Open, or print why not. */
pock_model *open_model(const char *artifact, uint64_t threads, uint32_t flags);
/* Print a model's message, as text or as a JSON line; returns EXIT_ERROR. */
int fail(const pock_model *model, bool json);

/* JSON lines: `{"event":"step"` and so on, each field with its comma. */
void json_begin(const char *event);
void json_text(const char *name, const char *text);
void json_number(const char *name, double number);
void json_count(const char *name, uint64_t number);
void json_end(void);

/* "1.50 MiB" in one of a few buffers. */
const char *size_text(uint64_t bytes);
const char *figures_text(const pock_figures *figures);
uint64_t now_ns(void);
/* Most resident memory of this process so far, in bytes; 0 if the system does not tell. */
uint64_t peak_bytes(void);

/* Resident memory now, likewise. */
uint64_t resident_bytes(void);
/* Most private memory at any call of this so far, likewise: what a memory budget is for. Pages
 * of files, as frozen weights and mapped data are, do not count. */
uint64_t private_bytes(void);

/* What some threads reach together at their best. */
typedef struct peak {
    double gflops; /* fused multiply-adds out of registers, each two operations; 0: unknown */
    double gbs;    /* bytes of memory, 10^9 per second; 0: unknown */
} peak;

peak measure_peak(uint32_t threads);
/* As the system tells it, "" if it does not. */
const char *cpu_name(void);

/* A profile that a command writes; without a path nothing is recorded. */
typedef struct profiling {
    const char *path;
    uint64_t rss_before;
    double load_ms;
    pock_profile *profile;
} profiling;

/* Call them in this order: before and after the model is opened, and at the end. On a mistake
 * the reason is in the model's message. */
void profiling_before(profiling *p);
pk_status profiling_begin(profiling *p, pock_model *model, uint64_t steps);
pk_status profiling_write(profiling *p, pock_model *model, uint64_t batch_bytes);

int run_train(int argc, char **argv);
int run_eval(int argc, char **argv);
int run_predict(int argc, char **argv);
int run_info(int argc, char **argv);
int run_bench(int argc, char **argv);
int run_export(int argc, char **argv);
int run_peak(int argc, char **argv);

/* Nanoseconds at the beginning of main. */
extern uint64_t process_begin_ns;

#endif
