#include "json.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 64, MAX_NUMBER = 64 };

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static const char *skip_space(const char *at, const char *end)
{
    while (at < end && is_space(*at)) {
        at++;
    }
    return at;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool is_digit(const char *at, const char *end)
{
    return at < end && *at >= '0' && *at <= '9';
}

/* Each of these returns where the piece ends, NULL if it is none. `at` is at its beginning. */

static const char *string_end(const char *at, const char *end)
{
    if (at == end || *at != '"') {
        return NULL;
    }
    for (at++; at < end && *at != '"'; at++) {
        if ((unsigned char)*at < 0x20u) {
            return NULL;
        }
        if (*at != '\\') {
            continue;
        }
        at++;
        if (at == end || strchr("\"\\/bfnrtu", *at) == NULL || *at == '\0') {
            return NULL;
        }
        for (int i = 0; *at == 'u' && i < 4; i++) {
            if (end - at <= i + 1 || hex_digit(at[i + 1]) < 0) {
                return NULL;
            }
        }
    }
    return at < end ? at + 1 : NULL;
}

static const char *number_end(const char *at, const char *end)
{
    at += at < end && *at == '-' ? 1 : 0;
    if (!is_digit(at, end)) {
        return NULL;
    }
    const bool zero = *at == '0';
    do {
        at++;
    } while (!zero && is_digit(at, end));
    if (at < end && *at == '.') {
        at++;
        if (!is_digit(at, end)) {
            return NULL;
        }
        while (is_digit(at, end)) {
            at++;
        }
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        at += at < end && (*at == '+' || *at == '-') ? 1 : 0;
        if (!is_digit(at, end)) {
            return NULL;
        }
        while (is_digit(at, end)) {
            at++;
        }
    }
    return at;
}

static const char *word_end(const char *at, const char *end, const char *word)
{
    const size_t length = strlen(word);
    return (size_t)(end - at) >= length && memcmp(at, word, length) == 0 ? at + length : NULL;
}

static const char *value_end(const char *at, const char *end, int depth);

static const char *nested_end(const char *at, const char *end, int depth)
{
    const bool object = *at == '{';
    const char close = object ? '}' : ']';
    at = skip_space(at + 1, end);
    if (at < end && *at == close) {
        return at + 1;
    }
    while (at < end) {
        if (object) {
            at = string_end(at, end);
            at = at == NULL ? NULL : skip_space(at, end);
            if (at == NULL || at == end || *at != ':') {
                return NULL;
            }
            at = skip_space(at + 1, end);
        }
        at = value_end(at, end, depth - 1);
        at = at == NULL ? NULL : skip_space(at, end);
        if (at == NULL || at == end) {
            return NULL;
        }
        if (*at == close) {
            return at + 1;
        }
        if (*at != ',') {
            return NULL;
        }
        at = skip_space(at + 1, end);
    }
    return NULL;
}

static const char *value_end(const char *at, const char *end, int depth)
{
    if (at == end || depth == 0) {
        return NULL;
    }
    switch (*at) {
    case '{':
    case '[':
        return nested_end(at, end, depth);
    case '"':
        return string_end(at, end);
    case 't':
        return word_end(at, end, "true");
    case 'f':
        return word_end(at, end, "false");
    case 'n':
        return word_end(at, end, "null");
    default:
        return number_end(at, end);
    }
}

bool json_check(const char *text, size_t length, json *value)
{
    const char *end = text + length;
    value->begin = skip_space(text, end);
    value->end = value_end(value->begin, end, MAX_DEPTH);
    return value->end != NULL && skip_space(value->end, end) == end;
}

static bool starts_with(json value, char c)
{
    return value.begin < value.end && *value.begin == c;
}

bool json_is_object(json value)
{
    return starts_with(value, '{');
}

bool json_is_array(json value)
{
    return starts_with(value, '[');
}

json_walk json_members(json value)
{
    json_walk walk = {value.end, value.end, json_is_object(value)};
    if (walk.object || json_is_array(value)) {
        walk.at = skip_space(value.begin + 1, value.end);
    }
    return walk;
}

bool json_next(json_walk *walk, json *key, json *value)
{
    const char *at = walk->at;
    if (at == walk->end || *at == '}' || *at == ']') {
        return false;
    }
    if (walk->object) {
        key->begin = at;
        key->end = string_end(at, walk->end);
        at = skip_space(key->end, walk->end);
        at = skip_space(at + 1, walk->end); /* the colon */
    }
    value->begin = at;
    value->end = value_end(at, walk->end, MAX_DEPTH);
    at = skip_space(value->end, walk->end);
    walk->at = *at == ',' ? skip_space(at + 1, walk->end) : at;
    return true;
}

bool json_find(json object, const char *name, json *value)
{
    json key = {NULL, NULL};
    json_walk walk = json_members(object);
    while (walk.object && json_next(&walk, &key, value)) {
        if (json_equals(key, name)) {
            return true;
        }
    }
    return false;
}

bool json_u64(json value, uint64_t *number)
{
    uint64_t sum = 0;
    for (const char *at = value.begin; at < value.end; at++) {
        const uint64_t digit = (uint64_t)(unsigned char)*at - '0';
        if (digit > 9u || sum > (UINT64_MAX - digit) / 10u) {
            return false;
        }
        sum = sum * 10u + digit;
    }
    *number = sum;
    return value.begin < value.end;
}

bool json_i64(json value, int64_t *number)
{
    const bool negative = starts_with(value, '-');
    uint64_t size = 0;
    value.begin += negative ? 1 : 0;
    if (!json_u64(value, &size) || size > (uint64_t)INT64_MAX + (negative ? 1u : 0u)) {
        return false;
    }
    *number = negative ? (int64_t)(UINT64_MAX - size + 1u) : (int64_t)size;
    return true;
}

bool json_double(json value, double *number)
{
    char text[MAX_NUMBER];
    const size_t length = (size_t)(value.end - value.begin);
    if (length == 0u || length >= sizeof text ||
        (value.begin[0] != '-' && !is_digit(value.begin, value.end))) {
        return false;
    }
    memcpy(text, value.begin, length);
    text[length] = '\0';
    *number = strtod(text, NULL);
    return true;
}

bool json_bool(json value, bool *truth)
{
    *truth = starts_with(value, 't');
    return *truth || starts_with(value, 'f');
}

bool json_is_null(json value)
{
    return starts_with(value, 'n');
}

static uint32_t four_digits(const char *at)
{
    uint32_t code = 0;
    for (int i = 0; i < 4; i++) {
        code = code * 16u + (uint32_t)hex_digit(at[i]);
    }
    return code;
}

/* The code point of the escape behind `\u`; `*at` moves to its last character. */
static uint32_t escaped(const char **at, const char *end)
{
    uint32_t code = four_digits(*at + 1);
    *at += 4;
    if (code >= 0xd800u && code < 0xdc00u && end - *at > 6 && (*at)[1] == '\\' && (*at)[2] == 'u') {
        const uint32_t low = four_digits(*at + 3);
        if (low >= 0xdc00u && low < 0xe000u) {
            *at += 6;
            return 0x10000u + ((code - 0xd800u) << 10) + (low - 0xdc00u);
        }
    }
    return code;
}

static size_t utf8(uint32_t code, char *out)
{
    if (code < 0x80u) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800u) {
        out[0] = (char)(0xc0u | (code >> 6));
        out[1] = (char)(0x80u | (code & 0x3fu));
        return 2;
    }
    if (code < 0x10000u) {
        out[0] = (char)(0xe0u | (code >> 12));
        out[1] = (char)(0x80u | ((code >> 6) & 0x3fu));
        out[2] = (char)(0x80u | (code & 0x3fu));
        return 3;
    }
    out[0] = (char)(0xf0u | (code >> 18));
    out[1] = (char)(0x80u | ((code >> 12) & 0x3fu));
    out[2] = (char)(0x80u | ((code >> 6) & 0x3fu));
    out[3] = (char)(0x80u | (code & 0x3fu));
    return 4;
}

/* The next character of a string, as 1 to 4 bytes; `*at` moves behind it. */
static size_t next_character(const char **at, const char *end, char *out)
{
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    size_t length = 1;
    if (**at != '\\') {
        out[0] = **at;
    } else {
        *at += 1;
        if (**at == 'u') {
            length = utf8(escaped(at, end), out);
        } else {
            out[0] = to[strchr(from, **at) - from];
        }
    }
    *at += 1;
    return length;
}

bool json_string(json value, char *text, size_t capacity)
{
    if (!starts_with(value, '"')) {
        return false;
    }
    size_t length = 0;
    const char *at = value.begin + 1;
    while (at < value.end - 1) {
        char piece[4];
        const size_t count = next_character(&at, value.end, piece);
        if (length + count >= capacity || piece[0] == '\0') {
            return false;
        }
        memcpy(text + length, piece, count);
        length += count;
    }
    if (capacity == 0u) {
        return false;
    }
    text[length] = '\0';
    return true;
}

bool json_equals(json value, const char *text)
{
    if (!starts_with(value, '"')) {
        return false;
    }
    const char *at = value.begin + 1;
    while (at < value.end - 1) {
        char piece[4];
        const size_t count = next_character(&at, value.end, piece);
        for (size_t i = 0; i < count; i++) {
            if (*text == '\0' || *text != piece[i]) {
                return false;
            }
            text++;
        }
    }
    return *text == '\0';
}
