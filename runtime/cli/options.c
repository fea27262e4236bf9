#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static bool wrong(const char *name, const char *text, const char *expected)
{
    (void)fprintf(stderr, "[usage] %s is '%s'\n    fix  give %s\n", name, text, expected);
    return false;
}

static bool read_count(const option *o, const char *text)
{
    char expected[64];
    char *end = NULL;
    errno = 0;
    const uint64_t number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || number < o->least) {
        (void)snprintf(expected, sizeof expected, "a whole number of at least %" PRIu64, o->least);
        return wrong(o->name, text, expected);
    }
    *(uint64_t *)o->value = number;
    return true;
}

static bool read_int(const option *o, const char *text)
{
    char *end = NULL;
    errno = 0;
    const int64_t number = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0') {
        return wrong(o->name, text, "a whole number");
    }
    *(int64_t *)o->value = number;
    return true;
}

static bool read_number(const option *o, const char *text)
{
    char *end = NULL;
    const double number = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(number) || number < 0.0) {
        return wrong(o->name, text, "a number that is not negative");
    }
    *(double *)o->value = number;
    return true;
}

static bool read_value(const option *o, const char *text)
{
    switch (o->kind) {
    case OPTION_COUNT:
        return read_count(o, text);
    case OPTION_INT:
        return read_int(o, text);
    case OPTION_NUMBER:
        return read_number(o, text);
    case OPTION_TEXT:
        *(const char **)o->value = text;
        return true;
    case OPTION_FLAG:
        break;
    }
    return false;
}

static const option *find(const option *options, size_t count, const char *name, size_t length)
{
    for (size_t i = 0; i < count; i++) {
        if (strncmp(options[i].name, name, length) == 0 && options[i].name[length] == '\0') {
            return &options[i];
        }
    }
    return NULL;
}

static bool unknown(const option *options, size_t count, const char *given)
{
    (void)fprintf(stderr, "[usage] there is no option '%s'\n    fix  choose from: ", given);
    for (size_t i = 0; i < count; i++) {
        (void)fprintf(stderr, "%s%s", i > 0u ? ", " : "", options[i].name);
    }
    (void)fprintf(stderr, "\n");
    return false;
}

bool read_options(int argc, char **argv, const option *options, size_t count,
                  const char **artifact)
{
    const char *found = NULL;
    for (int i = 0; i < argc; i++) {
        const char *given = argv[i];
        if (given[0] != '-') {
            if (found != NULL || artifact == NULL) {
                return wrong(artifact == NULL ? "an artifact" : "a second artifact", given,
                             artifact == NULL ? "options only" : "one");
            }
            found = given;
            continue;
        }
        const char *equals = strchr(given, '=');
        const size_t length = equals == NULL ? strlen(given) : (size_t)(equals - given);
        const option *o = find(options, count, given, length);
        if (o == NULL) {
            return unknown(options, count, given);
        }
        if (o->kind == OPTION_FLAG) {
            *(bool *)o->value = true;
            continue;
        }
        const char *text = equals == NULL ? (i + 1 < argc ? argv[++i] : NULL) : equals + 1;
        if (text == NULL) {
            return wrong(o->name, "", "a value");
        }
        if (!read_value(o, text)) {
            return false;
        }
    }
    if (artifact == NULL) {
        return true;
    }
    *artifact = found;
    if (found == NULL) {
        (void)fprintf(stderr, "[usage] no artifact was given\n    fix  give the folder that "
                              "`pockc compile` wrote, as model.pock\n");
        return false;
    }
    return true;
}
