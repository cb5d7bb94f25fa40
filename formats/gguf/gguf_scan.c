/* Reads the head of a GGUF file through a window. */
#include "gguf_scan.h"

#include <string.h>

#include "kernels/kernels.h"
#include "libckpt/json_scan.h"
#include "libckpt/size.h"

static const struct {
    const char *name;
    uint32_t bytes;
} kinds[GGUF_KIND_COUNT] = {
    [GGUF_U8] = { "u8", 1 },          [GGUF_I8] = { "i8", 1 },
    [GGUF_U16] = { "u16", 2 },        [GGUF_I16] = { "i16", 2 },
    [GGUF_U32] = { "u32", 4 },        [GGUF_I32] = { "i32", 4 },
    [GGUF_F32] = { "f32", 4 },        [GGUF_BOOL] = { "bool", 1 },
    [GGUF_STRING] = { "string", 0 },  [GGUF_ARRAY] = { "array", 0 },
    [GGUF_U64] = { "u64", 8 },        [GGUF_I64] = { "i64", 8 },
    [GGUF_F64] = { "f64", 8 },
};

uint32_t gguf_kind_bytes(gguf_kind kind)
{
    return kinds[kind].bytes;
}

const char *gguf_kind_name(gguf_kind kind)
{
    return kinds[kind].name;
}

void gguf_scan_begin(gguf_scan *s, const ckpt_file *file, uint64_t offset, ckpt_error *err)
{
    memset(s, 0, offsetof(gguf_scan, bytes));
    s->file = file;
    s->err = err;
    s->offset = offset;
    s->window = offset;
    s->end = size_min(file_size(file), GGUF_HEAD_BYTES_MAX);
}

static ckpt_code fail_short(const gguf_scan *s, uint64_t size, const char *what)
{
    if (s->end < file_size(s->file))
        return ckpt_fail(s->err, CKPT_E_FORMAT, "'%s': the header is longer than %d bytes, at %s",
                         file_path(s->file), GGUF_HEAD_BYTES_MAX, what);
    return ckpt_fail(s->err, CKPT_E_FORMAT,
                     "'%s' ends inside its header: %s at byte %llu needs %llu bytes, %llu are left",
                     file_path(s->file), what, (unsigned long long)s->offset,
                     (unsigned long long)size, (unsigned long long)(s->end - s->offset));
}

static uint64_t hash_window(const gguf_scan *s, size_t size)
{
    return size == 0 ? s->hash : kernels_get()->hash_bytes(s->bytes, size, s->hash).low64;
}

/* Move the window so that it begins at the next byte. */
static ckpt_code refill(gguf_scan *s)
{
    const uint64_t left = s->end - s->offset;
    ckpt_code code;

    s->hash = hash_window(s, (size_t)size_min(s->offset - s->window, s->window_bytes));
    s->window = s->offset;
    s->window_bytes = (size_t)size_min(left, sizeof s->bytes);
    code = file_read_at(s->file, s->window, s->bytes, s->window_bytes, s->err);
    if (code != CKPT_OK)
        s->window_bytes = 0;
    return code;
}

static ckpt_code scan_bytes(gguf_scan *s, void *out, size_t size, const char *what)
{
    char *at = out;

    if (size > s->end - s->offset)
        return fail_short(s, size, what);
    while (size > 0) {
        const uint64_t used = s->offset - s->window;
        size_t some;
        ckpt_code code;

        if (used >= s->window_bytes && (code = refill(s)) != CKPT_OK)
            return code;
        some = (size_t)size_min(size, s->window_bytes - (s->offset - s->window));
        memcpy(at, s->bytes + (s->offset - s->window), some);
        at += some;
        s->offset += some;
        size -= some;
    }
    return CKPT_OK;
}

/* Skipped bytes are hashed if they are in the window. The rest of long arrays is not read, and
 * therefore not hashed. */
ckpt_code gguf_scan_skip(gguf_scan *s, uint64_t size, const char *what)
{
    if (size > s->end - s->offset)
        return fail_short(s, size, what);
    s->offset += size;
    return CKPT_OK;
}

ckpt_code gguf_scan_u32(gguf_scan *s, uint32_t *out, const char *what)
{
    return scan_bytes(s, out, sizeof *out, what);
}

ckpt_code gguf_scan_u64(gguf_scan *s, uint64_t *out, const char *what)
{
    return scan_bytes(s, out, sizeof *out, what);
}

ckpt_code gguf_scan_number(gguf_scan *s, gguf_kind kind, uint64_t *out, const char *what)
{
    const uint32_t size = gguf_kind_bytes(kind);
    ckpt_code code;

    *out = 0;
    if ((code = scan_bytes(s, out, size, what)) != CKPT_OK)
        return code;
    if (kind == GGUF_I8 || kind == GGUF_I16 || kind == GGUF_I32) {
        const unsigned shift = 64 - 8 * size;

        *out = (uint64_t)((int64_t)(*out << shift) >> shift);
    }
    return CKPT_OK;
}

ckpt_code gguf_scan_length(gguf_scan *s, uint64_t *size, const char *what)
{
    const ckpt_code code = gguf_scan_u64(s, size, what);

    if (code == CKPT_OK && *size > s->end - s->offset)
        return fail_short(s, *size, what);
    return code;
}

ckpt_code gguf_scan_text(gguf_scan *s, char *out, size_t size, const char *what)
{
    const ckpt_code code = scan_bytes(s, out, size, what);

    if (code != CKPT_OK)
        return code;
    out[size] = '\0';
    if (strlen(out) != size || !json_is_utf8(out, size))
        return ckpt_fail(s->err, CKPT_E_FORMAT, "'%s': %s at byte %llu is not text",
                         file_path(s->file), what, (unsigned long long)(s->offset - size));
    return CKPT_OK;
}

ckpt_code gguf_scan_name(gguf_scan *s, char *out, size_t max_bytes, const char *what)
{
    uint64_t size;
    ckpt_code code;

    if ((code = gguf_scan_length(s, &size, what)) != CKPT_OK)
        return code;
    if (size >= max_bytes)
        return ckpt_fail(s->err, CKPT_E_FORMAT, "'%s': %s has %llu bytes, expected at most %zu",
                         file_path(s->file), what, (unsigned long long)size, max_bytes - 1);
    return gguf_scan_text(s, out, (size_t)size, what);
}

ckpt_code gguf_scan_count(gguf_scan *s, uint64_t item_bytes, uint64_t *out, const char *what)
{
    uint64_t total;
    ckpt_code code;

    if ((code = gguf_scan_u64(s, out, what)) != CKPT_OK)
        return code;
    if (!size_mul(*out, item_bytes, &total) || total > s->end - s->offset)
        return ckpt_fail(s->err, CKPT_E_FORMAT,
                         "'%s': %s is %llu, but the file has only %llu bytes left",
                         file_path(s->file), what, (unsigned long long)*out,
                         (unsigned long long)(s->end - s->offset));
    return CKPT_OK;
}

ckpt_code gguf_scan_skip_string(gguf_scan *s, const char *what)
{
    uint64_t size;
    const ckpt_code code = gguf_scan_length(s, &size, what);

    return code == CKPT_OK ? gguf_scan_skip(s, size, what) : code;
}

uint64_t gguf_scan_hash(const gguf_scan *s)
{
    return hash_window(s, (size_t)size_min(s->offset - s->window, s->window_bytes));
}
