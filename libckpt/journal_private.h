/* journal_private.h: the lines of a journal, for the files of journal.h. */
#ifndef CKPT_JOURNAL_PRIVATE_H
#define CKPT_JOURNAL_PRIVATE_H

#include "journal.h"

enum { JOURNAL_LINE_MAX = 160 };       /* bytes of a line, "file" lines excepted */

/* How every journal begins; and the lines of one word, the last of which counts. */
extern const char journal_magic[];
extern const char journal_finished[];
extern const char journal_again[];
extern const char journal_refused[];

struct ckpt_journal {
    char *path;
    char header[JOURNAL_LINE_MAX];     /* the first line of journals of this job */
    int fd;
    size_t tensor_count;
    journal_record *records;
    uint64_t side_bytes;
    size_t file_count;         /* "file" lines */
    uint64_t source_times;     /* of the last "source" line; 0: none yet */
    int source_changed;
    int is_finished;
    int is_refused;
    int keep_others;
};

/* The first line of the journals of a job. */
void journal_header(hash128 fingerprint, char header[JOURNAL_LINE_MAX]);

/* Read the lines into *j, up to the first that is incomplete or damaged. *good_bytes: up to the end
 * of the last valid line; 0 when the first line is not complete. */
ckpt_code journal_read_lines(ckpt_journal *j, const char *text, size_t size, size_t *good_bytes,
                             ckpt_error *err);
/* The names in the valid "file" lines of a journal, of any job. */
ckpt_code journal_take_names(const char *text, size_t size, file_list *out, ckpt_error *err);

ckpt_code journal_append_word(ckpt_journal *j, const char *word, ckpt_error *err);
/* Record the files that the run will make: --overwrite and --restart remove only these. */
ckpt_code journal_append_files(ckpt_journal *j, const file_list *files, ckpt_error *err);
/* Record the times of the inputs. Once they have changed, source_changed stays set for all later
 * runs: tensors that were copied before the change are still in the output. */
ckpt_code journal_append_source(ckpt_journal *j, uint64_t times, ckpt_error *err);
ckpt_code journal_append_header(ckpt_journal *j, ckpt_error *err);

/* The error for the journal of another job at `path`. */
ckpt_code journal_fail_foreign(const ckpt_journal *j, const char *path, ckpt_error *err);

#endif
