/* message.h: what went wrong, in the form that all of pockc's errors have. */
#ifndef POCK_MESSAGE_H
#define POCK_MESSAGE_H

#include "pock_core.h"

typedef struct pock_error {
    char text[1536];
} pock_error;

#if defined(__GNUC__)
#define POCK_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define POCK_PRINTF(text, first)
#endif

/* Note "[slug] what" and a line with the way on, cut where the room ends; returns `status`. */
pk_status pock_fail(pock_error *error, pk_status status, const char *slug, const char *fix,
                    const char *format, ...) POCK_PRINTF(5, 6);

#endif
