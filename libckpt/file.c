/* file.c: one open file of any kind: its identity, and transfers of runs and rectangles. */
#include "file.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "file_ops.h"
#include "size.h"

/* The runs of one transfer; and the largest gap that is read rather than skipped, because a system
 * call costs about as much as copying this many bytes. */
enum { FILE_BATCH = IOV_MAX, FILE_GAP_MAX = 4096 };

const char *file_path(const ckpt_file *f)
{
    return f->path;
}

uint64_t file_size(const ckpt_file *f)
{
    return f->size;
}

const file_identity *file_identity_of(const ckpt_file *f)
{
    return &f->identity;
}

ckpt_code file_check_unchanged(const ckpt_file *f, int *is_touched, ckpt_error *err)
{
    return f->ops->check_unchanged(f, is_touched, err);
}

ckpt_code file_close(ckpt_file *f, ckpt_error *err)
{
    return f == NULL ? CKPT_OK : f->ops->close(f, err);
}

/* ---- one run ---- */

ckpt_code file_check_range(const ckpt_file *f, uint64_t offset, uint64_t size, ckpt_error *err)
{
    uint64_t end;

    if (!size_add(offset, size, &end) || end > INT64_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s': %" PRIu64 " bytes at offset %" PRIu64 " lie beyond any file",
                         f->path, size, offset);
    return CKPT_OK;
}

ckpt_code file_move_at(const file_mover *mover, uint64_t offset, void *memory, size_t size,
                       ckpt_error *err)
{
    struct iovec run = { memory, size };
    file_runs runs = { .memory = &run, .count = 1, .offset = offset, .size_bytes = size };
    const ckpt_code code = file_check_range(mover->file, offset, size, err);

    return code != CKPT_OK || size == 0 ? code : mover->move(mover->file, &runs, err);
}

ckpt_code file_read_at(const ckpt_file *f, uint64_t offset, void *out, size_t size,
                       ckpt_error *err)
{
    const file_mover mover = { f, f->ops->read, FILE_GAP_MAX };

    return file_move_at(&mover, offset, out, size, err);
}

/* ---- rectangles ---- */

/* Check that the offset of the last byte does not overflow, in the file and in memory. */
static ckpt_code check_rect(const ckpt_file *f, const file_rect *rect, size_t memory_pitch_bytes,
                            ckpt_error *err)
{
    const uint64_t row_count = rect->row_count;
    uint64_t span;
    uint64_t memory_span;

    if (row_count > 1 &&
        (rect->pitch_bytes < rect->row_bytes || memory_pitch_bytes < rect->row_bytes))
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s': rows of %" PRIu64 " bytes overlap at pitch %" PRIu64, f->path,
                         rect->row_bytes,
                         size_min(rect->pitch_bytes, (uint64_t)memory_pitch_bytes));
    if (!size_mul(row_count - 1, rect->pitch_bytes, &span) ||
        !size_add(span, rect->row_bytes, &span) ||
        !size_mul(row_count - 1, memory_pitch_bytes, &memory_span) ||
        !size_add(memory_span, rect->row_bytes, &memory_span) || memory_span > SIZE_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s': %" PRIu64 " rows at pitch %" PRIu64 " lie beyond any file",
                         f->path, row_count, rect->pitch_bytes);
    return file_check_range(f, rect->offset, span, err);
}

/* The rows of a rectangle in memory. */
typedef struct {
    unsigned char *start;
    size_t pitch_bytes;
} rect_memory;

static void add_run(file_runs *runs, void *memory, size_t size)
{
    runs->memory[runs->count].iov_base = memory;
    runs->memory[runs->count].iov_len = size;
    runs->count++;
    runs->size_bytes += size;
}

/* Transfer all runs, empty the list, and advance the offset. */
static ckpt_code move_runs(const file_mover *mover, file_runs *runs, ckpt_error *err)
{
    const ckpt_code code =
        runs->size_bytes == 0 ? CKPT_OK : mover->move(mover->file, runs, err);

    runs->offset += runs->size_bytes;
    runs->size_bytes = 0;
    runs->count = 0;
    return code;
}

/*
 * Rows with a small gap between them in the file: transfer many per call. Gaps are read into
 * `skipped`. A gap must not be written, so that for writing the gap is 0.
 */
static ckpt_code move_batched(const file_mover *mover, const file_rect *rect,
                              const rect_memory *memory, ckpt_error *err)
{
    const size_t row_bytes = (size_t)rect->row_bytes;
    const size_t gap_bytes = (size_t)(rect->pitch_bytes - rect->row_bytes);
    unsigned char skipped[FILE_GAP_MAX];
    struct iovec batch[FILE_BATCH];
    file_runs runs = { .memory = batch, .offset = rect->offset };
    ckpt_code code;

    for (uint64_t i = 0; i < rect->row_count; i++) {
        add_run(&runs, memory->start + i * memory->pitch_bytes, row_bytes);
        if (gap_bytes > 0 && i + 1 < rect->row_count)
            add_run(&runs, skipped, gap_bytes);
        if (runs.count + 2 > FILE_BATCH) {
            if ((code = move_runs(mover, &runs, err)) != CKPT_OK)
                return code;
        }
    }
    return move_runs(mover, &runs, err);
}

/* Rows with large gaps: one call for each row. */
static ckpt_code move_rows(const file_mover *mover, const file_rect *rect,
                           const rect_memory *memory, ckpt_error *err)
{
    file_rect row = *rect;
    rect_memory row_memory = *memory;
    ckpt_code code = CKPT_OK;

    row.row_count = 1;
    row.pitch_bytes = row.row_bytes;
    for (uint64_t i = 0; i < rect->row_count && code == CKPT_OK; i++) {
        row.offset = rect->offset + i * rect->pitch_bytes;
        row_memory.start = memory->start + i * memory->pitch_bytes;
        code = move_batched(mover, &row, &row_memory, err);
    }
    return code;
}

ckpt_code file_move_rect(const file_mover *mover, const file_rect *rect, void *rows,
                         size_t memory_pitch_bytes, ckpt_error *err)
{
    const rect_memory memory = { rows, memory_pitch_bytes };
    file_rect run = *rect;
    ckpt_code code;

    if (rect->row_count == 0 || rect->row_bytes == 0)
        return CKPT_OK;
    if ((code = check_rect(mover->file, rect, memory_pitch_bytes, err)) != CKPT_OK)
        return code;
    if (rect->row_count == 1 ||
        (rect->pitch_bytes == rect->row_bytes && memory_pitch_bytes == rect->row_bytes)) {
        run.row_bytes = rect->row_bytes * rect->row_count;
        run.pitch_bytes = run.row_bytes;
        run.row_count = 1;
    }
    if (run.pitch_bytes - run.row_bytes <= mover->gap_max_bytes)
        return move_batched(mover, &run, &memory, err);
    return move_rows(mover, &run, &memory, err);
}

ckpt_code file_read_rect(const ckpt_file *f, const file_rect *rect, void *out,
                         size_t memory_pitch_bytes, ckpt_error *err)
{
    const file_mover mover = { f, f->ops->read, FILE_GAP_MAX };

    return file_move_rect(&mover, rect, out, memory_pitch_bytes, err);
}
