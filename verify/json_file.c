/* Writes a document to a file, optionally compressed. */
#include "json_file.h"

#include <stdio.h>
#include <string.h>

#include "libckpt/zfile.h"

ckpt_code json_file_write(const char *path, json_file_put *put, const void *what,
                          ckpt_error *err)
{
    zfile_writer *file;
    json_writer w;
    ckpt_code code;

    if (strcmp(path, "-") == 0) {
        json_writer_begin(&w, json_write_stdio, stdout, 1);
        if ((code = put(&w, what, err)) == CKPT_OK && putchar('\n') == EOF)
            code = ckpt_fail(err, CKPT_E_IO, "cannot write to standard output");
        return code;
    }
    if ((code = zfile_create(path, &file, err)) != CKPT_OK)
        return code;
    json_writer_begin(&w, zfile_write, file, 1);
    if ((code = put(&w, what, err)) != CKPT_OK) {
        zfile_abort(file);
        return code;
    }
    zfile_write(file, "\n", 1);
    return zfile_commit(file, err);
}
