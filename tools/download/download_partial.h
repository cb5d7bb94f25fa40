/*
 * download_partial.h: an unfinished download and its journal.
 *
 * Both are directly in the side folder: NAME.part has the size of the whole file; NAME.state is
 * text:
 *
 *   ckpt-part 1 HASH SIZE BOOT NONCE CHECK    the final file; boot and run that started it
 *   span START END CHECK                      these bytes were written
 *   synced BYTES CHECK                        of this file: spans before that are on the disk
 *
 * A killed process loses nothing that it wrote, because the system keeps it: every span counts
 * while BOOT is the current boot. After a reboot only spans before the last `synced` count. In
 * either case the hash of the whole file is verified before it is renamed.
 */
#ifndef CKPT_DOWNLOAD_PARTIAL_H
#define CKPT_DOWNLOAD_PARTIAL_H

#include "libckpt/hub/hub.h"

typedef struct partial partial;

typedef struct {
    uint64_t begin;
    uint64_t end;
} partial_span;

typedef struct {
    partial_span *items;            /* sorted, not touching; yours to free */
    size_t count;
} partial_spans;

enum { PARTIAL_JOURNAL_BYTES = 1 << 20, PARTIAL_KEY_BYTES = 17 };

/* Location of a partial. */
typedef struct {
    int side_fd;
    char key[PARTIAL_KEY_BYTES]; /* of repository and path: 16 hex digits */
    int allocate;                /* reserve the space when it is opened */
} partial_place;

/* Open or create the partial of `file`, journaled from PARTIAL_JOURNAL_BYTES on; *there: what it
 * already has. */
ckpt_code partial_open(const partial_place *place, const hub_file *file, partial **out,
                       partial_spans *there, ckpt_error *err);
/* The contents of a partial of that name, without changing it; 0 if there is none. If its journal
 * cannot be read, this and all functions below fail and leave it unchanged. */
ckpt_code partial_present_bytes(const partial_place *place, const hub_file *file, uint64_t *out,
                                ckpt_error *err);
/* How many bytes it has from the start without a hole, and a descriptor to read them, yours to
 * close; -1 and 0 if there is no such partial. */
typedef struct {
    int fd;
    uint64_t bytes;
} partial_prefix;
ckpt_code partial_open_prefix(const partial_place *place, const hub_file *file,
                              partial_prefix *out, ckpt_error *err);
/* Make a partial from another client's file, which has the first bytes; that file is moved. An
 * existing partial is kept. */
ckpt_code partial_adopt(const partial_place *place, const hub_file *file, int folder,
                        const char *name, ckpt_error *err);
/* Remove a partial that is not open, and its journal. */
void partial_discard(const partial_place *place, const hub_file *file);
/* Disk space already allocated to its partial. */
uint64_t partial_allocated_bytes(const partial_place *place, const hub_file *file);
void partial_close(partial *p);                  /* NULL is fine; keeps the files */

int partial_fd(const partial *p);
const char *partial_name(const partial *p);      /* in the side folder */
ckpt_code partial_write(partial *p, uint64_t offset, const void *bytes, size_t size,
                        ckpt_error *err);
/* Journal that [begin, end) was written. Calls partial_check_owner at most 20 times a second and
 * fails as it does: a process that took the partial over may rename it into place, and this process
 * must not write to it any more. */
ckpt_code partial_note(partial *p, uint64_t begin, uint64_t end, ckpt_error *err);
/* Make the spans journaled so far survive a power cut. Any thread. */
ckpt_code partial_sync(partial *p, ckpt_error *err);
/* Discard its contents. */
ckpt_code partial_restart(partial *p, ckpt_error *err);
/* Fails if another process took the partial over (locks do not work everywhere). */
ckpt_code partial_check_owner(partial *p, ckpt_error *err);
/* After the partial was renamed: remove the journal. */
void partial_remove_journal(partial *p);
/* Remove both files. */
void partial_remove(partial *p);

#endif
