/* A list of notes with a limit. */
#include "notes.h"

#include <stdarg.h>

#include "libckpt/error.h"

enum { NOTES_MAX = 1 << 20 };

ckpt_code note_add(file_list *notes, ckpt_error *err, const char *format, ...)
{
    char line[CKPT_ERROR_BYTES];
    va_list args;

    if (notes->count == NOTES_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT, "too many deviations to accept, the first is: %s",
                         notes->names[0]);
    va_start(args, format);
    error_format(line, format, args);
    va_end(args);
    return file_list_add(notes, line, err);
}

ckpt_code note_add_all(file_list *notes, const file_list *from, const char *of, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < from->count && code == CKPT_OK; i++)
        code = of == NULL ? note_add(notes, err, "%s", from->names[i])
                          : note_add(notes, err, "'%s': %s", of, from->names[i]);
    return code;
}
