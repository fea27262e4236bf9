/* Recording training steps for `pockc profile`: raw times by the number of each kernel call. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "model.h"
#include "run.h"

/* Steps of which every call is kept with its begin, its end and its threads. */
enum { KEPT_STEPS = 3, ENTRIES = 2 };

typedef struct profiled_entry {
    uint32_t number;
    pk_entry_info info;
    uint32_t runs; /* in a step */
} profiled_entry;

struct pock_profile {
    pock_model *model;
    profiled_entry entries[ENTRIES];
    uint32_t entry_count;
    uint32_t threads;
    uint64_t step_calls; /* of a step, all runs of all entries */
    uint64_t steps;      /* to record */
    uint64_t done;       /* recorded */
    bool started;        /* the first step, which is not steady, is over */
    uint64_t first_ns;
    uint64_t *step_ns;
    uint64_t *call_ns; /* by step and call */
    uint64_t *busy_ns; /* by thread */
    pk_recording kept[KEPT_STEPS];
    uint64_t kept_end_ns[KEPT_STEPS];
    uint64_t bytes;
};

static void *take(pock_profile *p, uint64_t count, uint64_t size)
{
    const bool fits = count <= SIZE_MAX / size;
    p->bytes += count * size;
    return fits ? calloc((size_t)count + 1u, (size_t)size) : NULL;
}

static pk_status find_entries(pock_profile *p)
{
    static const char *const names[ENTRIES] = {"train_step", "apply_update"};
    const core *c = &p->model->core;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        profiled_entry *e = &p->entries[p->entry_count];
        if (c->entry_find(p->model->context, names[i], &e->number) != PK_OK) {
            continue;
        }
        const pk_status status = c->entry_at(p->model->context, e->number, &e->info);
        if (status != PK_OK) {
            return status;
        }
        e->runs = i == 0u ? c->micro_batches(p->model->context) : 1u;
        p->step_calls += (uint64_t)e->info.steps * e->runs;
        p->entry_count++;
    }
    return p->entry_count > 0u ? PK_OK : PK_E_NOT_FOUND;
}

static bool allocate(pock_profile *p)
{
    p->step_ns = take(p, p->steps, sizeof *p->step_ns);
    p->busy_ns = take(p, p->threads, sizeof *p->busy_ns);
    p->call_ns = p->steps > UINT64_MAX / (p->step_calls + 1u)
                     ? NULL
                     : take(p, p->steps * p->step_calls, sizeof *p->call_ns);
    bool done = p->step_ns != NULL && p->busy_ns != NULL && p->call_ns != NULL;
    for (uint32_t i = 0; i < KEPT_STEPS; i++) {
        pk_recording *r = &p->kept[i];
        r->calls = take(p, p->step_calls, sizeof *r->calls);
        r->shares = take(p, p->step_calls * p->threads, sizeof *r->shares);
        r->capacity = p->step_calls;
        done = done && r->calls != NULL && r->shares != NULL;
    }
    return done;
}

pk_status pock_profile_begin(pock_model *model, uint32_t steps, pock_profile **profile)
{
    if (profile == NULL || model == NULL || steps == 0u) {
        return PK_E_ARGUMENT;
    }
    *profile = NULL;
    pk_status status = model_check_open(model);
    if (status != PK_OK) {
        return status;
    }
    pock_profile *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return model_core_status(model, PK_E_MEMORY);
    }
    p->model = model;
    p->steps = steps;
    p->threads = model->core.threads(model->context);
    status = find_entries(p);
    if (status == PK_OK && !allocate(p)) {
        status = PK_E_MEMORY;
    }
    if (status != PK_OK) {
        pock_profile_end(p);
        return model_core_status(model, status);
    }
    *profile = p;
    return PK_OK;
}

static void take_up(pock_profile *p, const pk_recording *r, uint64_t step_ns)
{
    uint64_t *ns = p->call_ns + p->done * p->step_calls;
    for (uint64_t i = 0; i < r->count; i++) {
        ns[i] = r->calls[i].end_ns - r->calls[i].begin_ns;
        for (uint32_t t = 0; t < p->threads; t++) {
            p->busy_ns[t] += r->shares[i * p->threads + t].busy_ns;
        }
    }
    p->kept_end_ns[p->done % KEPT_STEPS] = run_now_ns();
    p->step_ns[p->done] = step_ns;
    p->done++;
}

void pock_profile_step(pock_profile *p, uint64_t step_ns)
{
    if (p == NULL || p->done == p->steps) {
        return;
    }
    if (!p->started) {
        p->started = true;
        p->first_ns = step_ns;
    } else if (p->kept[p->done % KEPT_STEPS].count == p->step_calls) {
        take_up(p, &p->kept[p->done % KEPT_STEPS], step_ns);
    }
    pk_recording *next = p->done == p->steps ? NULL : &p->kept[p->done % KEPT_STEPS];
    if (next != NULL) {
        next->count = 0;
    }
    (void)p->model->core.record(p->model->context, next);
}

static void write_text(FILE *file, const char *text)
{
    (void)fputc('"', file);
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
            (void)fputc('\\', file);
        }
        (void)fputc((unsigned char)*c < 0x20u ? ' ' : *c, file);
    }
    (void)fputc('"', file);
}

static void write_names(FILE *file, const pock_profile *p, const profiled_entry *e, bool nodes)
{
    (void)fprintf(file, ",\n\"%s\":[", nodes ? "nodes" : "kernels");
    for (uint32_t i = 0; i < e->info.steps; i++) {
        const char *kernel = "";
        const char *node = "";
        (void)p->model->core.step_at(p->model->context, e->number, i, &kernel, &node);
        (void)fputs(i > 0u ? "," : "", file);
        write_text(file, nodes ? node : kernel);
    }
    (void)fputc(']', file);
}

/* `first` is the number in a step of the entry's first call. */
static void write_entry(FILE *file, const pock_profile *p, const profiled_entry *e, uint64_t first)
{
    (void)fputs("{\"name\":", file);
    write_text(file, e->info.name);
    (void)fprintf(file, ",\"runs\":%" PRIu32, e->runs);
    write_names(file, p, e, false);
    write_names(file, p, e, true);
    (void)fputs(",\n\"ns\":[", file);
    for (uint32_t i = 0; i < e->info.steps; i++) {
        (void)fputs(i > 0u ? ",\n[" : "[", file);
        for (uint64_t s = 0; s < p->done; s++) {
            for (uint32_t r = 0; r < e->runs; r++) {
                const uint64_t call = first + (uint64_t)r * e->info.steps + i;
                (void)fprintf(file, "%s%" PRIu64, s + r > 0u ? "," : "",
                              p->call_ns[s * p->step_calls + call]);
            }
        }
        (void)fputc(']', file);
    }
    (void)fputs("]}", file);
}

static uint32_t position_of(const pock_profile *p, uint32_t entry)
{
    return p->entry_count > 1u && p->entries[1].number == entry ? 1u : 0u;
}

static void write_spans(FILE *file, const pock_profile *p, const pk_recording *r, uint64_t origin,
                        bool *any)
{
    for (uint64_t i = 0; i < r->count; i++) {
        const pk_call *call = &r->calls[i];
        for (uint32_t t = 0; t < p->threads; t++) {
            const pk_share *share = &r->shares[i * p->threads + t];
            const uint64_t begin = t == 0u ? call->begin_ns : share->begin_ns;
            const uint64_t end = t == 0u ? call->end_ns : share->end_ns;
            if (end == 0u) {
                continue;
            }
            (void)fprintf(file, "%s[%" PRIu32 ",%" PRIu32 ",%" PRIu32 ",%" PRIu64 ",%" PRIu64 "]",
                          *any ? ",\n" : "", position_of(p, call->entry), call->step, t,
                          begin - origin, end - origin);
            *any = true;
        }
    }
}

static void write_kept(FILE *file, const pock_profile *p)
{
    const uint64_t kept = p->done < KEPT_STEPS ? p->done : KEPT_STEPS;
    const uint64_t first = p->done - kept;
    const uint64_t origin =
        kept == 0u ? 0u : p->kept_end_ns[first % KEPT_STEPS] - p->step_ns[first];
    bool any = false;
    (void)fputs(",\n\"spans\":[", file);
    for (uint64_t s = first; s < p->done; s++) {
        write_spans(file, p, &p->kept[s % KEPT_STEPS], origin, &any);
    }
    (void)fputs("],\n\"span_steps\":[", file);
    for (uint64_t s = first; s < p->done; s++) {
        const uint64_t end = p->kept_end_ns[s % KEPT_STEPS] - origin;
        (void)fprintf(file, "%s[%" PRIu64 ",%" PRIu64 "]", s > first ? "," : "",
                      end - p->step_ns[s], end);
    }
    (void)fputc(']', file);
}

static void write_facts(FILE *file, const pock_profile *p, const pock_profile_facts *facts)
{
    char digits[SHA256_DIGITS + 1] = "";
    (void)manifest_hash_of(&p->model->manifest, "step.so", digits);
    (void)fprintf(file, "{\"format\":\"pock-recording\",\"version\":1,\"step_sha256\":\"%s\","
                        "\"threads\":%" PRIu32 ",\"cpu\":",
                  digits, p->threads);
    write_text(file, facts->cpu == NULL ? "" : facts->cpu);
    (void)fprintf(file, ",\n\"peak_gflops\":%.6g,\"peak_gbs\":%.6g,\"load_ms\":%.6g,"
                        "\"first_step_ms\":%.6g,\n\"rss_before_bytes\":%" PRIu64
                        ",\"rss_peak_bytes\":%" PRIu64 ",\"measuring_bytes\":%" PRIu64
                        ",\n\"step_ms\":[",
                  facts->peak_gflops, facts->peak_gbs, facts->load_ms, (double)p->first_ns / 1e6,
                  facts->rss_before_bytes, facts->rss_peak_bytes,
                  p->bytes + facts->batch_bytes);
    for (uint64_t s = 0; s < p->done; s++) {
        (void)fprintf(file, "%s%.9g", s > 0u ? "," : "", (double)p->step_ns[s] / 1e6);
    }
    (void)fputs("],\n\"busy_ns\":[", file);
    for (uint32_t t = 0; t < p->threads; t++) {
        (void)fprintf(file, "%s%" PRIu64, t > 0u ? "," : "", p->busy_ns[t]);
    }
    (void)fputc(']', file);
}

static bool write_all_of(FILE *file, const pock_profile *p, const pock_profile_facts *facts)
{
    uint64_t first = 0;
    write_facts(file, p, facts);
    (void)fputs(",\n\"entries\":[", file);
    for (uint32_t i = 0; i < p->entry_count; i++) {
        (void)fputs(i > 0u ? ",\n" : "", file);
        write_entry(file, p, &p->entries[i], first);
        first += (uint64_t)p->entries[i].info.steps * p->entries[i].runs;
    }
    (void)fputc(']', file);
    write_kept(file, p);
    (void)fputs("}\n", file);
    return fflush(file) == 0 && ferror(file) == 0;
}

pk_status pock_profile_write(pock_profile *p, const pock_profile_facts *facts, const char *path)
{
    replacement r;
    if (p == NULL || facts == NULL || path == NULL) {
        return PK_E_ARGUMENT;
    }
    if (p->done == 0u) {
        return pock_fail(&p->model->error, PK_E_ARGUMENT, "profile-steps",
                         "take at least two steps: more rows or more epochs",
                         "no step was recorded: the first one, which loads pages, does not count");
    }
    pk_status status = replace_begin(&r, path, &p->model->error);
    if (status != PK_OK) {
        return status;
    }
    const int file = dup(r.file);
    FILE *out = file < 0 ? NULL : fdopen(file, "w");
    const bool done = out != NULL && write_all_of(out, p, facts);
    if (out != NULL) {
        (void)fclose(out);
    } else if (file >= 0) {
        (void)close(file);
    }
    if (!done) {
        status = write_failed(&p->model->error, path);
        replace_abandon(&r);
        return status;
    }
    return replace_end(&r, false);
}

void pock_profile_end(pock_profile *p)
{
    if (p == NULL) {
        return;
    }
    if (p->model->context != NULL) {
        (void)p->model->core.record(p->model->context, NULL);
    }
    for (uint32_t i = 0; i < KEPT_STEPS; i++) {
        free(p->kept[i].calls);
        free(p->kept[i].shares);
    }
    free(p->step_ns);
    free(p->busy_ns);
    free(p->call_ns);
    free(p);
}
