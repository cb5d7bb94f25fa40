/*
 * zip_build.h: builds the stored zip archives of torch.save (zip_item.h has the layout). Records
 * are written to the caller's buffer; of the last one it may be the header only.
 */
#ifndef CKPT_ZIP_BUILD_H
#define CKPT_ZIP_BUILD_H

#include <stddef.h>
#include <stdint.h>

enum { ZIP_RECORDS_MAX = 4, ZIP_NAME_MAX = 40 };

typedef struct {
    char name[ZIP_NAME_MAX];     /* "archive/data.pkl" */
    uint64_t offset;             /* of its local header */
    uint64_t size_bytes;
    uint32_t crc;
    size_t crc_position;         /* in the buffer, of the local header's CRC */
} zip_build_record;

typedef struct {
    const char *root;            /* "archive" */
    unsigned char *bytes;
    size_t capacity;
    size_t used;
    int overflow;                /* the buffer is too small */
    zip_build_record records[ZIP_RECORDS_MAX];
    size_t count;
} zip_builder;

void zip_build_begin(zip_builder *b, const char *root, void *bytes, size_t capacity);
/* Add a record, padded so that its content is aligned. */
void zip_build_record_add(zip_builder *b, const char *name, const void *content, size_t size);
/* Add the header of the last record; the caller writes its `size` bytes after `used` bytes. */
void zip_build_record_announce(zip_builder *b, const char *name, uint64_t size);
/*
 * Write the central directory and the end record, which begin at `position` of the archive, to
 * `bytes`. Returns their size; 0: no room. *crc_position: where the last record's CRC is in them.
 */
size_t zip_build_tail(const zip_builder *b, uint64_t position, unsigned char *bytes,
                      size_t capacity, size_t *crc_position);

#endif
