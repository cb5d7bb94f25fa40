/*
 * zip_archive.h: the records of a torch.save archive inside a file, found through its central
 * directory. Contents are not read, sizes and positions are checked against the archive.
 */
#ifndef CKPT_ZIP_ARCHIVE_H
#define CKPT_ZIP_ARCHIVE_H

#include "libckpt/file.h"

typedef struct {
    const ckpt_file *file;
    uint64_t offset;             /* of the archive in the file */
    uint64_t size_bytes;
    unsigned char *directory;    /* the central directory; malloc'd */
    size_t directory_bytes;
    size_t record_count;
    uint64_t data_end;           /* where the central directory begins, from the archive's start */
} zip_archive;

typedef struct {
    uint64_t header_offset;      /* from the archive's start */
    uint64_t size_bytes;
    uint32_t crc;                /* 0: torch was configured not to compute it */
    const char *name;            /* with its root; in the directory, not NUL-terminated */
    size_t name_bytes;
} zip_record;

/* Read the directory of the archive at [offset, offset + length). Close it, also after a
 * failure. */
ckpt_code zip_archive_open(const ckpt_file *file, uint64_t offset, uint64_t length,
                           zip_archive *out, ckpt_error *err);
void zip_archive_close(zip_archive *a);

/*
 * Find ROOT/name, where ROOT is the folder of the first record. It must be neither compressed nor
 * encrypted. No such record, or more than one, is an error.
 */
ckpt_code zip_archive_find(const zip_archive *a, const char *name, zip_record *out,
                           ckpt_error *err);
/* Refuse an archive with big-endian numbers; without a byteorder record they are little-endian. */
ckpt_code zip_archive_check_order(const zip_archive *a, ckpt_error *err);
/* Position of the record's content in the file, from its local header, which must agree with the
 * directory. */
ckpt_code zip_archive_locate(const zip_archive *a, const zip_record *record, uint64_t *out,
                             ckpt_error *err);
/* The content, of at most max_bytes, its CRC checked if there is one; malloc'd, yours to free. */
ckpt_code zip_archive_load(const zip_archive *a, const zip_record *record, uint64_t max_bytes,
                           unsigned char **out, ckpt_error *err);

#endif
