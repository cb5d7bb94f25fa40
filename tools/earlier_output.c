/* Recognises outputs of an earlier run by their first bytes. */
#include "earlier_output.h"

#include <string.h>
#include <sys/stat.h>

#include "libckpt/file.h"
#include "libckpt/size.h"
#include "libckpt/text.h"

static int is_compressed(const char *path, const earlier_begin *begin)
{
    return text_ends_with(path, ".zst") && earlier_begins_as(begin, "\x28\xb5\x2f\xfd");
}

ckpt_code earlier_output_check(const char *path, const char *what, earlier_is_ours *is_ours,
                               const void *context, ckpt_error *err)
{
    earlier_begin begin = { .size = 0 };
    ckpt_file *file = NULL;
    struct stat status;
    ckpt_code code;

    if (stat(path, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0)
        return CKPT_OK;
    if ((code = file_open(path, &file, err)) != CKPT_OK)
        return code;
    begin.size = (size_t)size_min(EARLIER_BYTES, file_size(file));
    code = file_read_at(file, 0, begin.bytes, begin.size, err);
    file_close(file, NULL);
    if (code != CKPT_OK || is_compressed(path, &begin) || is_ours(&begin, context))
        return code;
    return ckpt_fail(err, CKPT_E_USAGE, "'%s' already exists and is not %s of an earlier run: move "
                     "it away or choose another name", path, what);
}

void earlier_drop_blanks(earlier_begin *begin)
{
    size_t kept = 0;

    for (size_t i = 0; i < begin->size; i++)
        if (begin->bytes[i] == '\0' || strchr(" \t\r\n", begin->bytes[i]) == NULL)
            begin->bytes[kept++] = begin->bytes[i];
    begin->size = kept;
    begin->bytes[kept] = '\0';
}

int earlier_begins_as(const earlier_begin *begin, const char *text)
{
    return text_begins_with(begin->bytes, text);
}
