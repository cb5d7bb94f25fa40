/*
 * journal.h: the record of the record of what a killed run had finished. DIRECTORY/.ckpt-journal,
 * text:
 *
 *   ckpt-journal 1 FINGERPRINT                      of the command, its sources and its targets
 *   done TENSOR VALUE-DIGEST BYTES-HASH CHECK       one line per finished tensor
 *   file NAME CHECK                                 one line per file that the run makes
 *   source TIMES CHECK                              when its inputs were changed last
 *   side BYTES CHECK                                of a file beside it (journal_append_side)
 *   finished CHECK                                  nothing is left to do
 *   again CHECK                                     its process was started once more
 *   refused CHECK                                   the input or the options forbid the job
 *
 * Processes that share a job have a journal each, .ckpt-journal.PART-of-COUNT; the one that finds
 * all of them finished commits.
 *
 * A line that is torn or whose check is wrong is ignored. What the lines say is verified against
 * the written bytes before it is believed, so they need no fsync.
 */
#ifndef CKPT_JOURNAL_H
#define CKPT_JOURNAL_H

#include "kernels/kernels.h"
#include "file.h"

typedef struct ckpt_journal ckpt_journal;

typedef struct {
    int is_done;
    hash128 value;           /* digest of the source's values; zero when digests are off */
    hash128 bytes;           /* sum of tile_hash over what was written */
} journal_record;

typedef struct {
    const char *directory;
    hash128 fingerprint;
    size_t tensor_count;
    unsigned share;             /* 1 .. share_count */
    unsigned share_count;       /* 0 or 1: one process does it all */
    const file_list *files;    /* that the run makes, relative to the directory; or NULL */
    int keep_others;           /* what another job left cannot be discarded */
    uint64_t source_times;     /* see journal_source_changed; 0: not known */
} journal_options;

/*
 * Open or begin the journal of a directory, and lock it against other processes. A folder with a
 * journal of another fingerprint is refused, and so is one that has files but no journal: it is
 * somebody else's. *out is yours to close.
 */
ckpt_code journal_open(const journal_options *options, ckpt_journal **out, ckpt_error *err);

/* Which jobs have journals in a folder, or in what is no folder: none. */
typedef struct {
    unsigned same_count;       /* with this fingerprint */
    int is_other;
    int is_locked;             /* a process has one of them open */
} journal_sight;
ckpt_code journal_look(const char *directory, hash128 fingerprint, journal_sight *out,
                       ckpt_error *err);

/* Remove all journals of a folder, and the lock: what is in it is complete. */
ckpt_code journal_remove_all(const char *directory, ckpt_error *err);

/* Append the files that the journals of a folder name: those that their runs make, or made. */
ckpt_code journal_list_files(const char *directory, file_list *out, ckpt_error *err);

/* Tell the other shares that the job cannot be done. */
ckpt_code journal_refuse(ckpt_journal *journal, ckpt_error *err);

/* Nothing is left to do for this journal's process; what it wrote is on disk. */
ckpt_code journal_finish(ckpt_journal *journal, ckpt_error *err);

/*
 * Read the journals of all shares into records[tensor_count] (those of other shares are what they
 * say, not what is on disk) and side_bytes[share_count]. *unfinished: how many shares are not
 * finished, or not begun. One that was refused is CKPT_E_USAGE.
 */
ckpt_code journal_collect(const journal_options *options, journal_record *records,
                          uint64_t *side_bytes, unsigned *unfinished, ckpt_error *err);
void journal_close(ckpt_journal *journal);      /* NULL is fine */

/* 1 when an earlier run had inputs with other times of their last change. */
int journal_source_changed(const ckpt_journal *journal);

/* What was read when it was opened; by tensor. */
journal_record *journal_records(ckpt_journal *journal);

ckpt_code journal_append(ckpt_journal *journal, size_t tensor, hash128 value, hash128 bytes,
                         ckpt_error *err);

/* A file beside the journal that grows by appending: what the tensors that are done need of it lies
 * in its first side_bytes. The largest that was appended, or read when the journal was opened. */
ckpt_code journal_append_side(ckpt_journal *journal, uint64_t side_bytes, ckpt_error *err);
uint64_t journal_side_bytes(const ckpt_journal *journal);

/* What the names of journals (and of the lock for the commit) begin with; they go at the end. */
extern const char journal_name[];

#endif
