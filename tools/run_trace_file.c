/* Opens the trace without truncating an existing file. */
#include "run_trace_file.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libckpt/file.h"

static ckpt_code fail(const run_trace_file *file, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_IO, "cannot write '%s': %s", file->path, strerror(errno));
}

ckpt_code run_trace_file_open(const char *path, run_trace_file *out, ckpt_error *err)
{
    out->path = path;
    out->is_new = !file_exists(path);
    out->stream = fopen(path, "a");          /* keeps what is there, unlike "w" */
    return out->stream == NULL ? fail(out, err) : CKPT_OK;
}

ckpt_code run_trace_file_begin(run_trace_file *file, ckpt_error *err)
{
    struct stat status;

    if (file->stream == NULL)
        return CKPT_OK;
    file->is_new = 0;
    if (fstat(fileno(file->stream), &status) == 0 && S_ISREG(status.st_mode) &&
        ftruncate(fileno(file->stream), 0) != 0)
        return fail(file, err);
    return CKPT_OK;
}

ckpt_code run_trace_file_close(run_trace_file *file, ckpt_error *err)
{
    const int result = file->stream == NULL ? 0 : fclose(file->stream);

    file->stream = NULL;
    return result == 0 ? CKPT_OK : fail(file, err);
}

void run_trace_file_abort(run_trace_file *file)
{
    if (file->stream == NULL)
        return;
    fclose(file->stream);
    file->stream = NULL;
    if (file->is_new)
        unlink(file->path);
}
