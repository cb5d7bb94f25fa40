/* Prints to memory first, so that a failure leaves no file. */
#include "text_file.h"

#include <stdlib.h>

#include "libckpt/file.h"

ckpt_code text_file_write(const char *path, text_file_print *print, const void *what,
                          ckpt_error *err)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    ckpt_code code;

    if (out == NULL)
        return ckpt_fail_memory(err, path, 0);
    code = print(out, what, err);
    if (fclose(out) != 0 && code == CKPT_OK)
        code = ckpt_fail_memory(err, path, size);
    if (code == CKPT_OK)
        code = file_write_all(path, text, size, err);
    free(text);
    return code;
}
