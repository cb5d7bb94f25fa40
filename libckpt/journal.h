/*
 * journal.h: which tensors a conversion has finished, so that a killed one can resume.
 * DIRECTORY/.ckpt-journal is text:
 *
 *   ckpt-journal 1 FINGERPRINT                      of the command, its sources and its targets
 *   done TENSOR VALUE-DIGEST BYTES-HASH CHECK       one line per finished tensor
 *   file NAME CHECK                                 one line per file that the run makes
 *   source TIMES CHECK                              hash of the inputs' times of last change
 *   side BYTES CHECK                                length of a side file (journal_append_side)
 *   finished CHECK                                  this process has nothing left to do
 *   again CHECK                                     it was started again after one of these states
 *   refused CHECK                                   the input or the options forbid the job
 *
 * Processes that share a job have a journal each, .ckpt-journal.PART-of-COUNT; the one that finds
 * all of them finished commits.
 *
 * Reading stops at the first line that is incomplete or whose check is wrong. A resumed run
 * compares every "done" line with the bytes on disk, so lines need no fsync.
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
    const file_list *files;    /* names the run will make, relative to the directory; or NULL */
    int keep_others;           /* the caller has no --restart: the error must not advise it */
    uint64_t source_times;     /* see journal_source_changed; 0: not known */
} journal_options;

/*
 * Open or create the journal of a directory and lock it against other processes. A folder with the
 * journal of another fingerprint is refused, and so is one that has files but no journal: somebody
 * else made them. *out is yours to close.
 */
ckpt_code journal_open(const journal_options *options, ckpt_journal **out, ckpt_error *err);

/* Refuse what journal_open would refuse, and change nothing: for dry runs. A folder that does not
 * exist is fine. */
ckpt_code journal_check_open(const journal_options *options, ckpt_error *err);

/* Which jobs have journals in a folder. A path that is not a folder has none. */
typedef struct {
    unsigned same_count;       /* with this fingerprint */
    int is_other;
    int is_locked;             /* a process has one of them open */
} journal_sight;
ckpt_code journal_look(const char *directory, hash128 fingerprint, journal_sight *out,
                       ckpt_error *err);

/* Remove all journals of a folder, and the lock for the commit, when its content is complete. */
ckpt_code journal_remove_all(const char *directory, ckpt_error *err);

/* Append the names of the "file" lines of all journals of a folder. */
ckpt_code journal_list_files(const char *directory, file_list *out, ckpt_error *err);

/* Append "refused": the other shares then fail instead of waiting. */
ckpt_code journal_refuse(ckpt_journal *journal, ckpt_error *err);

/* Append "finished" and sync the journal. Call it when everything the process wrote is on disk. */
ckpt_code journal_finish(ckpt_journal *journal, ckpt_error *err);

/*
 * Read the journals of all shares into records[tensor_count] (not verified against the disk) and
 * side_bytes[share_count]. *unfinished: the number of shares without "finished". A refused share is
 * CKPT_E_USAGE.
 */
ckpt_code journal_collect(const journal_options *options, journal_record *records,
                          uint64_t *side_bytes, unsigned *unfinished, ckpt_error *err);
void journal_close(ckpt_journal *journal);      /* NULL is fine */

/* 1 when the inputs' times of last change differ from those of an earlier run of the job. */
int journal_source_changed(const ckpt_journal *journal);

/* The "done" lines read by journal_open, indexed by tensor. Borrowed. */
journal_record *journal_records(ckpt_journal *journal);

/* Record that a tensor is written: the sum of its value digest, and that of the hashes of the bytes
 * that were written, by which the next run proves them. */
ckpt_code journal_append(ckpt_journal *journal, size_t tensor, hash128 value, hash128 bytes,
                         ckpt_error *err);

/* A side file grows by appending; everything that finished tensors need of it is in its first
 * side_bytes. journal_side_bytes returns the largest number appended or read so far. */
ckpt_code journal_append_side(ckpt_journal *journal, uint64_t side_bytes, ckpt_error *err);
uint64_t journal_side_bytes(const ckpt_journal *journal);

/* The prefix of the names of journals and of the lock for the commit. */
extern const char journal_name[];
/* 1 for the name of a journal, of a side file of one, or of that lock. */
int journal_is_name(const char *name);

#endif
