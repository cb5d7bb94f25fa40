/*
 * checkpoint.h: accessors of an open checkpoint that are not public, for the rooms beside formats/.
 * All results are borrowed. Defined in formats/checkpoint.c; formats/format.h has the struct.
 */
#ifndef CKPT_CHECKPOINT_H
#define CKPT_CHECKPOINT_H

#include "file.h"
#include "json.h"
#include "map.h"
#include "store.h"
#include "vocabulary.h"

const char *checkpoint_path(const ckpt_checkpoint *checkpoint);       /* as it was given */
/* The opened folder, or NULL if a single file was opened. */
const ckpt_folder *checkpoint_folder(const ckpt_checkpoint *checkpoint);
/* folder_check_unchanged of its folder. Every command that may read a URL calls it after its last
 * read. */
ckpt_code checkpoint_check_unchanged(const ckpt_checkpoint *checkpoint, ckpt_error *err);
ckpt_store *checkpoint_store(const ckpt_checkpoint *checkpoint);
const json_value *checkpoint_config(const ckpt_checkpoint *checkpoint);   /* NULL: there is none */
const file_list *checkpoint_notes(const ckpt_checkpoint *checkpoint);
map_ledger checkpoint_ledger(const ckpt_checkpoint *checkpoint);      /* of its stored tensors */

/* The key that holds the value root of a GGUF file, in the first file of a model. */
#define CHECKPOINT_ROOT_KEY "ckpt.value_root"

typedef enum { TOKENIZER_NONE, TOKENIZER_IN_FILES, TOKENIZER_IN_WEIGHTS } checkpoint_tokenizer;

/* Where the tokenizer is that a program would use: keys of a GGUF file go before files. */
checkpoint_tokenizer checkpoint_tokenizer_of(const ckpt_checkpoint *checkpoint);
/* Read that tokenizer, unless there is none. *out is yours to release, also on failure. */
ckpt_code checkpoint_read_vocabulary(const ckpt_checkpoint *checkpoint, ckpt_vocabulary *out,
                                     ckpt_error *err);
/* The root that the writer of a GGUF file or a packed checkpoint has put into it, in hex; NULL:
 * none, or the tensors were not opened under the names and with the values that it is of. */
const char *checkpoint_stored_root(const ckpt_checkpoint *checkpoint);
/* The name of the key that holds it. */
const char *checkpoint_root_key(const ckpt_checkpoint *checkpoint);
/* Fail if it holds another root than `root`, which is that of all its values; the error ends with
 * `advice`. */
ckpt_code checkpoint_check_root(const ckpt_checkpoint *checkpoint, const char *root,
                                const char *advice, ckpt_error *err);
/* Note that the root that it holds, if any, is not compared: `why`. Not of a packed checkpoint, of
 * which all bytes that are read are compared with their hashes. */
#define CHECKPOINT_ROOT_CHECK "ckpt-verify check does that"
ckpt_code checkpoint_note_root(const ckpt_checkpoint *checkpoint, const char *why,
                               file_list *notes, ckpt_error *err);

#endif
