#include "message.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

pk_status pock_fail(pock_error *error, pk_status status, const char *slug, const char *fix,
                    const char *format, ...)
{
    const size_t room = sizeof error->text;
    va_list arguments;
    (void)snprintf(error->text, room, "[%s] ", slug);
    size_t used = strlen(error->text);
    va_start(arguments, format);
    (void)vsnprintf(error->text + used, room - used, format, arguments);
    va_end(arguments);
    used = strlen(error->text);
    if (fix != NULL) {
        (void)snprintf(error->text + used, room - used, "\n    fix  %s", fix);
    }
    return status;
}
