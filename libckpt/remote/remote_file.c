/* remote_file.c: a file of a remote session, as a table of operations. */
#include "remote_file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/file_ops.h"
#include "libckpt/size.h"

typedef struct {
    ckpt_file base;
    remote_session *session;
    remote_entry *entry;
} remote_file;

static const remote_file *remote_of(const ckpt_file *f)
{
    return (const remote_file *)f;
}

static ckpt_code remote_read(const ckpt_file *self, file_runs *runs, ckpt_error *err)
{
    const remote_file *f = remote_of(self);
    const uint64_t end = runs->offset + runs->size_bytes;
    uint64_t offset = runs->offset;
    ckpt_code code = CKPT_OK;

    if (end > self->size)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' ends %" PRIu64 " bytes early", self->path,
                         size_min(end - self->size, runs->size_bytes));
    for (int i = 0; i < runs->count && code == CKPT_OK; i++) {
        const struct iovec *run = &runs->memory[i];
        const remote_range range = { offset, run->iov_len, end };

        code = remote_session_read(f->session, f->entry, &range, run->iov_base, err);
        offset += run->iov_len;
    }
    return code;
}

/* The folder asks for all of its files together, after the last read (folder_check_unchanged). */
static ckpt_code remote_check_unchanged(const ckpt_file *self, int *is_touched, ckpt_error *err)
{
    (void)self;
    (void)is_touched;
    (void)err;
    return CKPT_OK;
}

static ckpt_code remote_close(ckpt_file *self, ckpt_error *err)
{
    (void)err;
    remote_session_drop(remote_of(self)->session);
    free(self);
    return CKPT_OK;
}

/* The hash that the hub lists, or the ETag of the server that has the bytes. */
static uint64_t version_of(const remote_entry *entry)
{
    const char *text = entry->file.hash != NULL     ? entry->file.hash
                       : entry->origin_count > 0 ? entry->origins[entry->origin_count - 1].version
                                                    : "";

    return hub_text_hash(text, strlen(text));
}

ckpt_code remote_file_open(remote_session *s, remote_entry *entry, ckpt_file **out,
                           ckpt_error *err)
{
    static const file_ops ops = { .read = remote_read,
                                  .check_unchanged = remote_check_unchanged,
                                  .close = remote_close };
    remote_file *f = calloc(1, sizeof *f);
    uint64_t version;

    if (f == NULL)
        return ckpt_fail_memory(err, "an open file", sizeof *f);
    pthread_mutex_lock(&s->lock);
    version = version_of(entry);
    entry->is_opened = 1;
    pthread_mutex_unlock(&s->lock);
    remote_session_hold(s);
    f->session = s;
    f->entry = entry;
    f->base = (ckpt_file){ .ops = &ops, .path = entry->path, .size = entry->file.size_bytes,
                           .identity = { .version = version, .touch = version } };
    *out = &f->base;
    return CKPT_OK;
}
