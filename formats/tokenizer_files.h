/* tokenizer_files.h: reads a tokenizer from tokenizer.json and the files beside it. */
#ifndef CKPT_TOKENIZER_FILES_H
#define CKPT_TOKENIZER_FILES_H

#include "libckpt/file.h"
#include "libckpt/folder.h"
#include "libckpt/json.h"
#include "libckpt/vocabulary.h"

#define TOKENIZER_FILE "tokenizer.json"

typedef struct {
    const ckpt_folder *folder;
    const file_list *files;        /* of the folder; NULL: none */
    const json_value *config;      /* config.json; NULL: none */
    uint64_t vocab_size;           /* a token with this id or a larger one is an error; 0: any id */
} tokenizer_place;

/* 1 when tokenizer.json is among the files. */
int tokenizer_files_are_there(const tokenizer_place *place);

/*
 * Read vocabulary and merges of tokenizer.json, which must be there, ids of special tokens and
 * flags of tokenizer_config.json or else config.json, and the chat template. *out is yours to
 * release, also on failure. Only BPE is read.
 */
ckpt_code tokenizer_files_read(const tokenizer_place *place, ckpt_vocabulary *out,
                               ckpt_error *err);

#endif
