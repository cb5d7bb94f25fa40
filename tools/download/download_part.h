/*
 * download_part.h: a file that is still coming, and its journal.
 *
 * Both lie flat in the side folder: NAME.part has the size of the whole file; NAME.state is text:
 *
 *   ckpt-part 1 HASH SIZE BOOT NONCE CHECK    what it becomes; where and by whom it was begun
 *   span START END CHECK                      these bytes were written
 *   synced BYTES CHECK                        of this file: spans before that are on the disk
 *
 * A killed process loses nothing that it wrote, because the system keeps it: every span counts
 * while BOOT is the system's. After a reboot only spans before the last `synced` count. Neither is
 * trusted: the hash of the whole file decides before it gets its name.
 */
#ifndef CKPT_DOWNLOAD_PART_H
#define CKPT_DOWNLOAD_PART_H

#include "libckpt/hub/hub.h"

typedef struct part part;

typedef struct {
    uint64_t begin;
    uint64_t end;
} part_span;

typedef struct {
    part_span *items;            /* sorted, not touching; yours to free */
    size_t count;
} part_spans;

/* Open or begin the part of `file`, journaled from PART_JOURNAL_BYTES on; *there is what it has
 * already. allocate: reserve the space now. */
enum { PART_JOURNAL_BYTES = 1 << 20, PART_KEY_BYTES = 17 };
typedef struct {
    int side_fd;
    char key[PART_KEY_BYTES];    /* of repository and path: 16 hex digits */
    int allocate;
} part_place;
ckpt_code part_open(const part_place *place, const hub_file *file, part **out, part_spans *there,
                    ckpt_error *err);
/* What a part of that name has, without touching it; 0 when there is none. A part whose journal
 * cannot be read is an error, here and in all that follows, and stays as it is. */
ckpt_code part_present_bytes(const part_place *place, const hub_file *file, uint64_t *out,
                             ckpt_error *err);
/* How many bytes from the first on it has without a hole, and a descriptor to read them, yours to
 * close; -1 and 0 when there is no such part. */
typedef struct {
    int fd;
    uint64_t bytes;
} part_prefix;
ckpt_code part_open_prefix(const part_place *place, const hub_file *file, part_prefix *out,
                           ckpt_error *err);
/* Make the part of another client's file, which has the first bytes of it; that one is moved. A
 * part that is there stays. */
ckpt_code part_adopt(const part_place *place, const hub_file *file, int folder, const char *name,
                     ckpt_error *err);
/* Remove a part that nobody has open, and its journal. */
void part_discard(const part_place *place, const hub_file *file);
/* Bytes of the disk that its part has already. */
uint64_t part_allocated_bytes(const part_place *place, const hub_file *file);
void part_close(part *p);                        /* NULL is fine; keeps the files */

int part_fd(const part *p);
const char *part_name(const part *p);            /* in the side folder */
ckpt_code part_write(part *p, uint64_t offset, const void *bytes, size_t size, ckpt_error *err);
/* Journal that [begin, end) was written; fails as part_check_owner does: who took the part over may
 * give it its name, and then nobody else must write to it. */
ckpt_code part_note(part *p, uint64_t begin, uint64_t end, ckpt_error *err);
/* What was noted so far survives a power cut. Any thread. */
ckpt_code part_sync(part *p, ckpt_error *err);
/* Nothing of it counts any more. */
ckpt_code part_restart(part *p, ckpt_error *err);
/* Fails when another process took the part over (locks do not work everywhere). */
ckpt_code part_check_owner(part *p, ckpt_error *err);
/* After the part got its name: remove the journal. */
void part_remove_journal(part *p);
/* Remove both files. */
void part_remove(part *p);

#endif
