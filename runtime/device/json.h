/* json.h: JSON read in place. A value is a piece of the text; nothing is allocated or copied.
 *
 * The whole text is checked once, by json_check; what is found in it then is well-formed.
 */
#ifndef POCK_JSON_H
#define POCK_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct json {
    const char *begin;
    const char *end;
} json;

/* The one value that a text consists of; false if it is not JSON, or nested too deeply. */
bool json_check(const char *text, size_t length, json *value);

/* Walk over the members of an object or the elements of an array. */
typedef struct json_walk {
    const char *at;
    const char *end;
    bool object;
} json_walk;

bool json_is_object(json value);
bool json_is_array(json value);
/* Of another kind of value nothing is found. */
json_walk json_members(json value);
/* False at the end. `key` is left alone in an array. */
bool json_next(json_walk *walk, json *key, json *value);
/* The value of the first member of that name. */
bool json_find(json object, const char *name, json *value);

/* False if the value is of another kind or does not fit. */
bool json_u64(json value, uint64_t *number);
bool json_i64(json value, int64_t *number);
bool json_double(json value, double *number);
bool json_bool(json value, bool *truth);
bool json_is_null(json value);
/* Unescaped, as UTF-8 with a 0 behind it; false as well if it holds a 0 itself. */
bool json_string(json value, char *text, size_t capacity);
/* Whether it is a string of this content. */
bool json_equals(json value, const char *text);

#endif
