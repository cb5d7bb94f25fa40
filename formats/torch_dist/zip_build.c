/* zip_build.c: local headers, central directory and end records of a stored zip archive. */
#include "zip_build.h"

#include <stdio.h>
#include <string.h>

#include "libckpt/crc32.h"
#include "zip_item.h"

enum {
    LOCAL_BYTES = 30, CENTRAL_BYTES = 46, END_BYTES = 22, END64_BYTES = 56, LOCATOR_BYTES = 20,
    LOCAL_ZIP64_BYTES = 20,      /* id, size, both sizes */
    PADDING_HEADER_BYTES = 4, PADDING_ID = 0x4246, PADDING_BYTE = 'Z',
    ZIP64_ID = 1, NEEDED = 20, NEEDED_ZIP64 = 45
};

static const uint64_t LIMIT32 = UINT32_MAX;      /* this value itself means: see zip64 */

typedef struct {
    unsigned char *at;
} cursor;

static void put(cursor *c, uint64_t number, size_t size)
{
    for (size_t i = 0; i < size; i++, number >>= 8)     /* runs of zeros may exceed 8 bytes */
        *c->at++ = (unsigned char)number;
}

static void put_text(cursor *c, const char *text)
{
    memcpy(c->at, text, strlen(text));
    c->at += strlen(text);
}

static uint64_t clipped(uint64_t number)
{
    return number < LIMIT32 ? number : LIMIT32;
}

void zip_build_begin(zip_builder *b, const char *root, void *bytes, size_t capacity)
{
    memset(b, 0, sizeof *b);
    b->root = root;
    b->bytes = bytes;
    b->capacity = capacity;
}

static size_t zip64_bytes(const zip_build_record *r)
{
    return r->size_bytes >= LIMIT32 ? LOCAL_ZIP64_BYTES : 0;
}

/* The fields common to both headers of a record, up to the length of the extra field. */
static void put_shared(cursor *c, const zip_build_record *r, size_t extra_bytes)
{
    put(c, zip64_bytes(r) > 0 ? NEEDED_ZIP64 : NEEDED, 2);
    put(c, 0, 2 + 2 + 2 + 2);                    /* flags, stored, time, date */
    put(c, r->crc, 4);
    put(c, clipped(r->size_bytes), 4);
    put(c, clipped(r->size_bytes), 4);
    put(c, strlen(r->name), 2);
    put(c, extra_bytes, 2);
}

static void put_name_and_zip64(cursor *c, const zip_build_record *r)
{
    put_text(c, r->name);
    if (zip64_bytes(r) == 0)
        return;
    put(c, ZIP64_ID, 2);
    put(c, LOCAL_ZIP64_BYTES - 4, 2);
    put(c, r->size_bytes, 8);
    put(c, r->size_bytes, 8);
}

static void put_local(cursor *c, const zip_build_record *r, size_t padding)
{
    put(c, 0x04034b50, 4);
    put_shared(c, r, zip64_bytes(r) + PADDING_HEADER_BYTES + padding);
    put_name_and_zip64(c, r);
    put(c, PADDING_ID, 2);
    put(c, padding, 2);
    memset(c->at, PADDING_BYTE, padding);
    c->at += padding;
}

static void add_header(zip_builder *b, const char *name, uint64_t size, uint32_t crc)
{
    zip_build_record *r = &b->records[b->count];
    size_t header_bytes;
    size_t padding;
    cursor c;

    if (b->overflow || b->count == ZIP_RECORDS_MAX) {
        b->overflow = 1;
        return;
    }
    snprintf(r->name, sizeof r->name, "%s/%s", b->root, name);
    r->offset = b->used;
    r->size_bytes = size;
    r->crc = crc;
    r->crc_position = b->used + 14;
    header_bytes = LOCAL_BYTES + strlen(r->name) + zip64_bytes(r) + PADDING_HEADER_BYTES;
    padding = (ZIP_ITEM_ALIGN - (b->used + header_bytes) % ZIP_ITEM_ALIGN) % ZIP_ITEM_ALIGN;
    if (header_bytes + padding > b->capacity - b->used) {
        b->overflow = 1;
        return;
    }
    c.at = b->bytes + b->used;
    put_local(&c, r, padding);
    b->used += header_bytes + padding;
    b->count++;
}

void zip_build_record_add(zip_builder *b, const char *name, const void *content, size_t size)
{
    add_header(b, name, size, crc32_add(0, content, size));
    if (b->overflow || size > b->capacity - b->used) {
        b->overflow = 1;
        return;
    }
    memcpy(b->bytes + b->used, content, size);
    b->used += size;
}

void zip_build_record_announce(zip_builder *b, const char *name, uint64_t size)
{
    add_header(b, name, size, 0);
}

/* Offsets of headers never need zip64: only the last record can be large. */
static void put_central(cursor *c, const zip_build_record *r)
{
    put(c, 0x02014b50, 4);
    put(c, 0, 2);                                /* made by */
    put_shared(c, r, zip64_bytes(r));
    put(c, 0, 2 + 2 + 2 + 4);                    /* comment, disk, attributes */
    put(c, r->offset, 4);
    put_name_and_zip64(c, r);
}

static void put_end64(cursor *c, size_t count, uint64_t size, uint64_t position)
{
    put(c, 0x06064b50, 4);
    put(c, END64_BYTES - 12, 8);                 /* of what follows */
    put(c, NEEDED_ZIP64, 2);
    put(c, NEEDED_ZIP64, 2);
    put(c, 0, 4 + 4);                            /* disks */
    put(c, count, 8);
    put(c, count, 8);
    put(c, size, 8);
    put(c, position, 8);
    put(c, 0x07064b50, 4);                       /* locator */
    put(c, 0, 4);
    put(c, position + size, 8);
    put(c, 1, 4);
}

size_t zip_build_tail(const zip_builder *b, uint64_t position, unsigned char *bytes,
                      size_t capacity, size_t *crc_position)
{
    size_t needed = END_BYTES + END64_BYTES + LOCATOR_BYTES;
    cursor c = { bytes };
    size_t size;

    for (size_t i = 0; i < b->count; i++)
        needed += CENTRAL_BYTES + strlen(b->records[i].name) + LOCAL_ZIP64_BYTES;
    *crc_position = 0;
    if (b->overflow || needed > capacity)
        return 0;
    for (size_t i = 0; i < b->count; i++) {
        *crc_position = (size_t)(c.at - bytes) + 16;
        put_central(&c, &b->records[i]);
    }
    size = (size_t)(c.at - bytes);
    if (position >= LIMIT32)
        put_end64(&c, b->count, size, position);
    put(&c, 0x06054b50, 4);
    put(&c, 0, 2 + 2);                           /* disks */
    put(&c, b->count, 2);
    put(&c, b->count, 2);
    put(&c, size, 4);
    put(&c, clipped(position), 4);
    put(&c, 0, 2);                               /* comment */
    return (size_t)(c.at - bytes);
}
