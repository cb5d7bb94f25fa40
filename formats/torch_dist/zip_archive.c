/* zip_archive.c: end record, central directory, local headers; zip64 where a field is all ones. */
#include "zip_archive.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/crc32.h"
#include "libckpt/memory.h"
#include "libckpt/recognise.h"
#include "libckpt/size.h"

enum {
    LOCAL_BYTES = 30, CENTRAL_BYTES = 46, END_BYTES = 22, END64_BYTES = 56, LOCATOR_BYTES = 20,
    TAIL_BYTES = 1024,           /* read first: the end and, for one tensor, the directory */
    DIRECTORY_MAX = 16 << 20,
    NAME_MAX_BYTES = 1024,
    FLAG_ENCRYPTED = 1, FLAG_DESCRIPTOR = 8, ZIP64_ID = 1
};

static const uint64_t LIMIT16 = UINT16_MAX;
static const uint64_t LIMIT32 = UINT32_MAX;

typedef struct {
    uint64_t position;           /* of the directory, from the archive's start */
    uint64_t size;
    uint64_t count;
} end_record;

static uint64_t load(const unsigned char *bytes, size_t size)
{
    uint64_t number = 0;

    for (size_t i = size; i-- > 0;)
        number = number << 8 | bytes[i];
    return number;
}

static ckpt_code fail(const zip_archive *a, ckpt_error *err, const char *what)
{
    unsigned char head[64];
    const size_t head_bytes = (size_t)size_min(file_size(a->file), sizeof head);
    const ckpt_code code = ckpt_fail(err, CKPT_E_FORMAT,
                                     "'%s': the archive at %llu of %llu bytes %s",
                                     file_path(a->file), (unsigned long long)a->offset,
                                     (unsigned long long)a->size_bytes, what);

    /* A file of archives starts with one. If it does not, it may be recognised as something
     * else. */
    if (head_bytes == 0 || file_read_at(a->file, 0, head, head_bytes, NULL) != CKPT_OK ||
        head[0] == 'P')
        return code;
    return recognise_refused(code, head, head_bytes, file_path(a->file), err);
}

/* `at` counts from the archive's start. */
static ckpt_code read_at(const zip_archive *a, uint64_t at, void *out, uint64_t size,
                         ckpt_error *err)
{
    if (at > a->size_bytes || size > a->size_bytes - at)
        return fail(a, err, "has a part outside the archive");
    return file_read_at(a->file, a->offset + at, out, (size_t)size, err);
}

/* The zip64 end record, at the position given by its locator. */
static ckpt_code read_end64(const zip_archive *a, const unsigned char *locator, end_record *end,
                            ckpt_error *err)
{
    unsigned char bytes[END64_BYTES];
    ckpt_code code;

    if (load(locator, 4) != 0x07064b50 || load(locator + 4, 4) != 0 || load(locator + 16, 4) > 1)
        return fail(a, err, "has no zip64 end record where one is needed");
    if ((code = read_at(a, load(locator + 8, 8), bytes, sizeof bytes, err)) != CKPT_OK)
        return code;
    if (load(bytes, 4) != 0x06064b50 || load(bytes + 16, 8) != 0 ||
        load(bytes + 24, 8) != load(bytes + 32, 8))
        return fail(a, err, "has a damaged zip64 end record");
    end->count = load(bytes + 32, 8);
    end->size = load(bytes + 40, 8);
    end->position = load(bytes + 48, 8);
    return CKPT_OK;
}

/* torch writes no comment, so the file ends with the end record. */
static ckpt_code read_end(const zip_archive *a, const unsigned char *tail, size_t tail_bytes,
                          end_record *end, ckpt_error *err)
{
    const unsigned char *bytes = tail + tail_bytes - END_BYTES;

    if (load(bytes, 4) != 0x06054b50 || load(bytes + 20, 2) != 0)
        return fail(a, err, "has no zip end record");
    if (load(bytes + 4, 4) != 0 || load(bytes + 8, 2) != load(bytes + 10, 2))
        return fail(a, err, "has several volumes");
    end->count = load(bytes + 10, 2);
    end->size = load(bytes + 12, 4);
    end->position = load(bytes + 16, 4);
    if (end->count != LIMIT16 && end->size != LIMIT32 && end->position != LIMIT32)
        return CKPT_OK;
    if (tail_bytes < END_BYTES + LOCATOR_BYTES)
        return fail(a, err, "has no zip64 end record where one is needed");
    return read_end64(a, bytes - LOCATOR_BYTES, end, err);
}

ckpt_code zip_archive_open(const ckpt_file *file, uint64_t offset, uint64_t length,
                           zip_archive *out, ckpt_error *err)
{
    unsigned char tail[TAIL_BYTES];
    const size_t tail_bytes = (size_t)size_min(length, sizeof tail);
    const uint64_t tail_at = length - tail_bytes;
    end_record end = { 0 };
    uint64_t directory_end;
    ckpt_code code;

    *out = (zip_archive){ .file = file, .offset = offset, .size_bytes = length };
    if (offset > file_size(file) || length > file_size(file) - offset)
        return fail(out, err, "extends past the end of the file");
    if (length < END_BYTES)
        return fail(out, err, "is too short for one");
    if ((code = read_at(out, tail_at, tail, tail_bytes, err)) != CKPT_OK ||
        (code = read_end(out, tail, tail_bytes, &end, err)) != CKPT_OK)
        return code;
    if (!size_add(end.position, end.size, &directory_end) || directory_end > length - END_BYTES ||
        end.size > DIRECTORY_MAX || end.count > end.size / CENTRAL_BYTES || end.count == 0)
        return fail(out, err, "has no central directory of a possible size");
    if (!memory_has(end.size) || (out->directory = malloc((size_t)end.size)) == NULL)
        return ckpt_fail_memory(err, "an archive's directory", end.size);
    out->directory_bytes = (size_t)end.size;
    out->record_count = (size_t)end.count;
    out->data_end = end.position;
    if (end.position >= tail_at)
        memcpy(out->directory, tail + (end.position - tail_at), out->directory_bytes);
    else
        code = read_at(out, end.position, out->directory, end.size, err);
    return code;
}

void zip_archive_close(zip_archive *a)
{
    free(a->directory);
    a->directory = NULL;
}

/* One entry of the central directory. */
typedef struct {
    const unsigned char *bytes;
    const char *name;
    size_t name_bytes;
    const unsigned char *extra;
    size_t extra_bytes;
    size_t entry_bytes;          /* all of it */
} central;

static int read_central(const zip_archive *a, size_t at, central *out)
{
    const unsigned char *bytes = a->directory + at;
    const size_t left = a->directory_bytes - at;

    if (left < CENTRAL_BYTES || load(bytes, 4) != 0x02014b50)
        return 0;
    out->bytes = bytes;
    out->name = (const char *)bytes + CENTRAL_BYTES;
    out->name_bytes = (size_t)load(bytes + 28, 2);
    out->extra_bytes = (size_t)load(bytes + 30, 2);
    out->entry_bytes = CENTRAL_BYTES + out->name_bytes + out->extra_bytes +
                       (size_t)load(bytes + 32, 2);
    out->extra = bytes + CENTRAL_BYTES + out->name_bytes;
    return out->entry_bytes <= left;
}

/* Fields that are all ones are stored in the zip64 extra field, in this order. 0: it is damaged. */
static int read_zip64(const central *c, uint64_t *fields[3])
{
    const unsigned char *at = c->extra;
    size_t left = c->extra_bytes;

    while (left >= 4 && load(at, 2) != ZIP64_ID) {
        const size_t size = 4 + (size_t)load(at + 2, 2);

        if (size > left)
            return 0;
        at += size;
        left -= size;
    }
    if (left >= 4) {
        left = (size_t)size_min(left - 4, load(at + 2, 2));
        at += 4;
    } else {
        left = 0;
    }
    for (int i = 0; i < 3; i++) {
        if (*fields[i] != LIMIT32)
            continue;
        if (left < 8)
            return 0;
        *fields[i] = load(at, 8);
        at += 8;
        left -= 8;
    }
    return 1;
}

static ckpt_code read_record(const zip_archive *a, const central *c, zip_record *out,
                             ckpt_error *err)
{
    uint64_t packed_bytes = load(c->bytes + 20, 4);
    uint64_t *fields[3] = { &out->size_bytes, &packed_bytes, &out->header_offset };

    out->name = c->name;
    out->name_bytes = c->name_bytes;
    out->crc = (uint32_t)load(c->bytes + 16, 4);
    out->size_bytes = load(c->bytes + 24, 4);
    out->header_offset = load(c->bytes + 42, 4);
    if (!read_zip64(c, fields))
        return fail(a, err, "has a damaged zip64 field");
    if (load(c->bytes + 8, 2) & FLAG_ENCRYPTED)
        return fail(a, err, "has an encrypted record");
    if (load(c->bytes + 10, 2) != 0 || packed_bytes != out->size_bytes)
        return fail(a, err, "has a compressed record, expected a stored one");
    if (out->size_bytes > a->data_end || out->header_offset > a->data_end - out->size_bytes)
        return fail(a, err, "has a record outside the archive");
    return CKPT_OK;
}

/* Bytes of the first record's folder, the slash included; 0 when it has none. */
static size_t root_bytes(const central *first)
{
    const char *slash = memchr(first->name, '/', first->name_bytes);

    return slash == NULL ? 0 : (size_t)(slash - first->name) + 1;
}

/* The entry of ROOT/name; found->bytes is NULL when there is none. */
static ckpt_code look_up(const zip_archive *a, const char *name, central *found, ckpt_error *err)
{
    const size_t length = strlen(name);
    const char *root = NULL;
    size_t root_length = 0;
    size_t at = 0;

    memset(found, 0, sizeof *found);

    for (size_t i = 0; i < a->record_count; i++) {
        central c = { 0 };

        if (!read_central(a, at, &c))
            return fail(a, err, "has a damaged central directory");
        if (i == 0) {
            root = c.name;
            root_length = root_bytes(&c);
        }
        if (c.name_bytes == root_length + length && memcmp(c.name, root, root_length) == 0 &&
            memcmp(c.name + root_length, name, length) == 0) {
            if (found->bytes != NULL)
                return fail(a, err, "has a record twice");
            *found = c;
        }
        at += c.entry_bytes;
    }
    if (at != a->directory_bytes)
        return fail(a, err, "has trailing data in its central directory");
    return CKPT_OK;
}

ckpt_code zip_archive_find(const zip_archive *a, const char *name, zip_record *out,
                           ckpt_error *err)
{
    central found;
    ckpt_code code = look_up(a, name, &found, err);

    if (code != CKPT_OK)
        return code;
    if (found.bytes == NULL)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': the archive at %llu has no record '%s'",
                         file_path(a->file), (unsigned long long)a->offset, name);
    return read_record(a, &found, out, err);
}

/* A local header repeats the directory; sizes and CRC only when no descriptor follows the content,
 * sizes only when they are not in a zip64 field. */
static int is_same_record(const unsigned char *header, const zip_record *record)
{
    const int has_descriptor = (load(header + 6, 2) & FLAG_DESCRIPTOR) != 0;
    const uint64_t size = load(header + 22, 4);

    if (load(header, 4) != 0x04034b50 || load(header + 8, 2) != 0 ||
        load(header + 26, 2) != record->name_bytes ||
        memcmp(header + LOCAL_BYTES, record->name, record->name_bytes) != 0)
        return 0;
    return has_descriptor || (load(header + 14, 4) == record->crc &&
                              load(header + 18, 4) == size &&
                              (size == record->size_bytes || size == LIMIT32));
}

/* Check that the extra fields fill the space between name and content exactly. */
static ckpt_code check_extra(const zip_archive *a, uint64_t at, uint64_t size, ckpt_error *err)
{
    unsigned char field[4];
    ckpt_code code;

    while (size >= sizeof field) {
        if ((code = read_at(a, at, field, sizeof field, err)) != CKPT_OK)
            return code;
        if (load(field + 2, 2) > size - sizeof field)
            break;
        size -= sizeof field + load(field + 2, 2);
        at += sizeof field + load(field + 2, 2);
    }
    return size == 0 ? CKPT_OK : fail(a, err, "has a record with a damaged header");
}

ckpt_code zip_archive_locate(const zip_archive *a, const zip_record *record, uint64_t *out,
                             ckpt_error *err)
{
    unsigned char header[LOCAL_BYTES + NAME_MAX_BYTES];
    uint64_t begin = record->header_offset + LOCAL_BYTES + record->name_bytes;
    uint64_t extra_bytes;
    ckpt_code code;

    if (record->name_bytes > NAME_MAX_BYTES)
        return fail(a, err, "has a record with a name that is too long");
    if ((code = read_at(a, record->header_offset, header, LOCAL_BYTES + record->name_bytes,
                        err)) != CKPT_OK)
        return code;
    if (!is_same_record(header, record))
        return fail(a, err, "has a record that contradicts its directory");
    extra_bytes = load(header + 28, 2);
    if ((code = check_extra(a, begin, extra_bytes, err)) != CKPT_OK)
        return code;
    begin += extra_bytes;
    if (begin > a->data_end || record->size_bytes > a->data_end - begin)
        return fail(a, err, "has a record outside the archive");
    *out = a->offset + begin;
    return CKPT_OK;
}

ckpt_code zip_archive_load(const zip_archive *a, const zip_record *record, uint64_t max_bytes,
                           unsigned char **out, ckpt_error *err)
{
    uint64_t position;
    ckpt_code code;

    *out = NULL;
    if (record->size_bytes > max_bytes)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s': a record of %llu bytes in the archive at %llu, expected at most "
                         "%llu",
                         file_path(a->file), (unsigned long long)record->size_bytes,
                         (unsigned long long)a->offset, (unsigned long long)max_bytes);
    if ((code = zip_archive_locate(a, record, &position, err)) != CKPT_OK)
        return code;
    if (!memory_has(record->size_bytes) ||
        (*out = malloc((size_t)record->size_bytes + 1)) == NULL)
        return ckpt_fail_memory(err, "a record", record->size_bytes);
    code = file_read_at(a->file, position, *out, (size_t)record->size_bytes, err);
    if (code == CKPT_OK && record->crc != 0 &&
        crc32_add(0, *out, (size_t)record->size_bytes) != record->crc)
        code = fail(a, err, "has a record whose CRC-32 is wrong");
    if (code != CKPT_OK) {
        free(*out);
        *out = NULL;
    }
    return code;
}

ckpt_code zip_archive_check_order(const zip_archive *a, ckpt_error *err)
{
    static const char little[] = "little";
    const size_t length = sizeof little - 1;
    unsigned char *text = NULL;
    zip_record record;
    central found;
    int is_little;
    ckpt_code code = look_up(a, "byteorder", &found, err);

    if (code != CKPT_OK || found.bytes == NULL ||
        (code = read_record(a, &found, &record, err)) != CKPT_OK)
        return code;
    is_little = record.size_bytes == length && record.crc == crc32_add(0, little, length);
    if (!is_little && record.crc == 0) {     /* the usual case needs no read */
        if ((code = zip_archive_load(a, &record, length, &text, err)) != CKPT_OK)
            return code;
        is_little = record.size_bytes == length && memcmp(text, little, length) == 0;
        free(text);
    }
    return is_little ? CKPT_OK : fail(a, err, "is not little-endian");
}
