#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli.h"

uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static uint64_t status_bytes(const char *format)
{
    char line[256];
    uint64_t kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file != NULL && fgets(line, (int)sizeof line, file) != NULL) {
        if (sscanf(line, format, &kib) == 1) {
            break;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return kib * 1024u;
}

uint64_t peak_bytes(void)
{
    return status_bytes("VmHWM: %" SCNu64);
}

uint64_t resident_bytes(void)
{
    return status_bytes("VmRSS: %" SCNu64);
}

/* Linux keeps no peak of it. */
uint64_t private_bytes(void)
{
    static uint64_t most;
    const uint64_t now = status_bytes("RssAnon: %" SCNu64);
    most = now > most ? now : most;
    return most;
}

const char *size_text(uint64_t bytes)
{
    static char texts[8][24];
    static unsigned next;
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    char *text = texts[next++ % 8u];
    double size = (double)bytes;
    int unit = 0;
    while (size >= 1024.0 && unit < 4) {
        size /= 1024.0;
        unit++;
    }
    (void)snprintf(text, sizeof texts[0], unit == 0 || size >= 100.0 ? "%.0f %s" : "%.3g %s", size,
                   units[unit]);
    return text;
}

const char *figures_text(const pock_figures *figures)
{
    static char text[96];
    int used = snprintf(text, sizeof text, "loss %.4f", figures->loss);
    if (!isnan(figures->accuracy)) {
        used += snprintf(text + used, sizeof text - (size_t)used, ", accuracy %.4f",
                         figures->accuracy);
    }
    (void)snprintf(text + used, sizeof text - (size_t)used, ", samples %" PRIu64,
                   figures->samples);
    return text;
}

static void json_string(const char *text)
{
    (void)putchar('"');
    for (const unsigned char *c = (const unsigned char *)text; *c != 0u; c++) {
        if (*c == '"' || *c == '\\') {
            (void)printf("\\%c", *c);
        } else if (*c < 0x20u) {
            (void)printf("\\u%04x", *c);
        } else {
            (void)putchar(*c);
        }
    }
    (void)putchar('"');
}

void json_begin(const char *event)
{
    (void)printf("{\"event\":");
    json_string(event);
}

void json_text(const char *name, const char *text)
{
    (void)printf(",\"%s\":", name);
    json_string(text);
}

/* JSON has no NaN. */
void json_number(const char *name, double number)
{
    if (isfinite(number)) {
        (void)printf(",\"%s\":%.9g", name, number);
    } else {
        (void)printf(",\"%s\":null", name);
    }
}

void json_count(const char *name, uint64_t number)
{
    (void)printf(",\"%s\":%" PRIu64, name, number);
}

void json_end(void)
{
    (void)printf("}\n");
    (void)fflush(stdout);
}

int fail(const pock_model *model, bool json)
{
    if (json) {
        json_begin("error");
        json_text("message", pock_message(model));
        json_end();
    }
    (void)fprintf(stderr, "%s\n", pock_message(model));
    return EXIT_ERROR;
}

pock_model *open_model(const char *artifact, uint64_t threads, uint32_t flags)
{
    pock_model *model = NULL;
    const pock_open_options options = {threads > UINT32_MAX ? UINT32_MAX : (uint32_t)threads,
                                       flags};
    if (pock_open(artifact, &options, &model) == PK_OK) {
        return model;
    }
    (void)fail(model, false);
    pock_close(model);
    return NULL;
}
