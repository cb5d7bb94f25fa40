/* Reads and writes the journal of a change in place. */
#include "delta_sectors.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/size.h"

enum {
    MAGIC_BYTES = 8, FINGERPRINT_AT = 8, COUNT_AT = 24, HASH_AT = 32,
    HEAD_BYTES = 64, ENTRY_BYTES = 16, BUFFER_BYTES = 1 << 18
};

_Static_assert(sizeof(delta_sector) == ENTRY_BYTES, "entries are written as they are");

static const char magic[MAGIC_BYTES + 1] = "ckptdlt1";

static uint64_t left_in(const ckpt_tensor *stored, uint64_t at, uint64_t unit_bytes)
{
    return size_min(unit_bytes - (stored->offset + at) % unit_bytes,
                    ckpt_part_bytes(stored, CKPT_DATA) - at);
}

uint64_t delta_sector_left(const ckpt_tensor *stored, uint64_t at)
{
    return left_in(stored, at, DELTA_SECTOR_BYTES);
}

uint64_t delta_lot_left(const ckpt_tensor *stored, uint64_t at)
{
    return left_in(stored, at, DELTA_LOT_BYTES);
}

static uint64_t pieces_of(const ckpt_tensor *t)
{
    const uint64_t bytes = ckpt_part_bytes(t, CKPT_DATA);

    return bytes == 0 ? 0
                      : (t->offset + bytes - 1) / DELTA_SECTOR_BYTES -
                            t->offset / DELTA_SECTOR_BYTES + 1;
}

ckpt_code delta_sectors_plan(const char *directory, const ckpt_catalog *stored,
                             const uint8_t *touched, delta_sectors *out, ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(stored);

    *out = (delta_sectors){ .path = file_join(directory, HF_CHANGE_JOURNAL),
                            .unfinished = file_join(directory, HF_CHANGE_JOURNAL ".tmp"),
                            .first = calloc(count + 1, sizeof *out->first) };
    if (out->path == NULL || out->unfinished == NULL || out->first == NULL)
        return ckpt_fail_memory(err, "a journal", count);
    for (size_t i = 0; i < count; i++) {
        out->first[i] = out->piece_count;
        out->piece_count += touched[i] ? pieces_of(ckpt_catalog_at(stored, i)) : 0;
    }
    return CKPT_OK;
}

void delta_sectors_release(delta_sectors *s)
{
    file_close(s->file, NULL);
    free(s->path);
    free(s->unfinished);
    free(s->first);
}

/* XXH3 of all entries, read in chunks. */
static ckpt_code hash_entries(const delta_sectors *s, uint64_t *out, ckpt_error *err)
{
    const uint64_t end = HEAD_BYTES + s->piece_count * ENTRY_BYTES;
    unsigned char *buffer = malloc(BUFFER_BYTES);
    hash_stream *stream = malloc(sizeof *stream);
    ckpt_code code = CKPT_OK;

    if (buffer == NULL || stream == NULL)
        code = ckpt_fail_memory(err, "a journal", BUFFER_BYTES);
    else
        kernels_get()->hash_begin(stream);
    for (uint64_t at = HEAD_BYTES; at < end && code == CKPT_OK; at += BUFFER_BYTES) {
        const size_t take = (size_t)size_min(end - at, BUFFER_BYTES);

        if ((code = file_read_at(s->file, at, buffer, take, err)) == CKPT_OK)
            kernels_get()->hash_add(stream, buffer, take);
    }
    if (code == CKPT_OK)
        *out = kernels_get()->hash_end(stream).low64;
    free(stream);
    free(buffer);
    return code;
}

static ckpt_code open_journal(delta_sectors *s, char *path, ckpt_error *err)
{
    char *slash = strrchr(path, '/');
    ckpt_code code;

    file_close(s->file, NULL);
    s->file = NULL;
    *slash = '\0';
    code = file_open_rw(path, slash + 1, &s->file, err);
    *slash = '/';
    return code;
}

ckpt_code delta_sectors_look(delta_sectors *s, hash128 fingerprint, int *is_there,
                             ckpt_error *err)
{
    uint64_t head[HEAD_BYTES / 8] = { 0 };
    uint64_t hash = 0;
    ckpt_code code;

    if (!(*is_there = file_exists(s->path)))
        return CKPT_OK;
    if ((code = open_journal(s, s->path, err)) != CKPT_OK)
        return code;
    if (file_size(s->file) >= HEAD_BYTES &&
        (code = file_read_at(s->file, 0, head, sizeof head, err)) != CKPT_OK)
        return code;
    if (memcmp(head, magic, MAGIC_BYTES) != 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not a journal of ckpt-delta", s->path);
    if (head[FINGERPRINT_AT / 8] != fingerprint.low64 ||
        head[FINGERPRINT_AT / 8 + 1] != fingerprint.high64 ||
        head[COUNT_AT / 8] != s->piece_count)
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' is of another change that was interrupted: run "
                         "the command that began it again", s->path);
    if (file_size(s->file) != HEAD_BYTES + s->piece_count * ENTRY_BYTES)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' has %llu bytes, expected %llu", s->path,
                         (unsigned long long)file_size(s->file),
                         (unsigned long long)(HEAD_BYTES + s->piece_count * ENTRY_BYTES));
    if ((code = hash_entries(s, &hash, err)) == CKPT_OK && hash != head[HASH_AT / 8])
        code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' is damaged", s->path);
    return code;
}

ckpt_code delta_sectors_begin(delta_sectors *s, hash128 fingerprint, ckpt_error *err)
{
    uint64_t head[HEAD_BYTES / 8] = { 0 };
    ckpt_code code;

    memcpy(head, magic, MAGIC_BYTES);
    head[FINGERPRINT_AT / 8] = fingerprint.low64;
    head[FINGERPRINT_AT / 8 + 1] = fingerprint.high64;
    head[COUNT_AT / 8] = s->piece_count;
    if ((code = file_remove(s->unfinished, err)) != CKPT_OK ||
        (code = open_journal(s, s->unfinished, err)) != CKPT_OK ||
        (code = file_set_size(s->file, HEAD_BYTES + s->piece_count * ENTRY_BYTES, err)) != CKPT_OK)
        return code;
    return file_write_at(s->file, 0, head, sizeof head, err);
}

ckpt_code delta_sectors_put(delta_sectors *s, uint64_t piece, const delta_sector *entries,
                            size_t count, ckpt_error *err)
{
    return file_write_at(s->file, HEAD_BYTES + piece * ENTRY_BYTES, entries, count * ENTRY_BYTES,
                         err);
}

ckpt_code delta_sectors_get(const delta_sectors *s, uint64_t piece, delta_sector *entries,
                            size_t count, ckpt_error *err)
{
    return file_read_at(s->file, HEAD_BYTES + piece * ENTRY_BYTES, entries, count * ENTRY_BYTES,
                        err);
}

ckpt_code delta_sectors_complete(delta_sectors *s, ckpt_error *err)
{
    uint64_t hash;
    ckpt_code code;

    if ((code = hash_entries(s, &hash, err)) != CKPT_OK ||
        (code = file_write_at(s->file, HASH_AT, &hash, sizeof hash, err)) != CKPT_OK ||
        (code = file_sync(s->file, err)) != CKPT_OK)
        return code;
    return file_rename_durable(s->unfinished, s->path, err);
}

ckpt_code delta_sectors_remove(delta_sectors *s, ckpt_error *err)
{
    ckpt_code code;

    if ((code = file_remove(s->unfinished, err)) == CKPT_OK &&
        (code = file_remove(s->path, err)) == CKPT_OK)
        code = file_sync_parent(s->path, err);
    return code;
}
