/* tokenizer_private.h: a tokenizer.json in memory, and the merging of words. */
#ifndef RUN_TOKENIZER_PRIVATE_H
#define RUN_TOKENIZER_PRIVATE_H

#include "libckpt/json.h"
#include "libckpt/table.h"
#include "tokenizer.h"
#include "tokenizer_regex.h"

enum { TEXT_SPLITS_MAX = 16, TEXT_BYTES = 256 };

typedef struct {
    const char *content;       /* borrowed from the document */
    size_t size;
    uint32_t id;
    int is_normalized;         /* searched for after all tokens that are not */
} text_added;

typedef struct {
    uint64_t pair;             /* left id in the upper half */
    uint32_t rank;
    uint32_t id;               /* of the merged token */
} text_merge;

typedef struct {
    const char *content;       /* NULL: no token has this id */
    int is_added;
} text_token;

struct run_text {
    json_document *document;
    table vocab;               /* content to id; not the added tokens */
    text_token *tokens;        /* by id */
    size_t token_count;
    text_added *added;
    size_t added_count;
    text_merge *merges;        /* sorted by pair */
    size_t merge_count;
    uint32_t byte_ids[TEXT_BYTES];
    text_regex *splits[TEXT_SPLITS_MAX];
    size_t split_count;
    int ignore_merges;         /* a word that is a token is not built by merges */
};

/* ---- merging (tokenizer_merge.c) ---- */

typedef struct {
    uint32_t id;
    uint32_t previous;
    uint32_t next;
} text_symbol;

typedef struct {
    const text_merge *merge;
    uint32_t at;               /* of the left symbol */
} text_candidate;

/* Working memory, reused from word to word. Initialise it with zeros. */
typedef struct {
    text_symbol *symbols;      /* a list linked by index; the first symbol is at index 0 */
    text_candidate *heap;
    size_t heap_count;
    size_t capacity;           /* longest word, in bytes, that the arrays have room for */
} text_merger;

/* Merge the symbols of a word of one byte or more, as far as possible. */
ckpt_code text_merge_piece(const run_text *text, text_merger *m, const char *bytes, size_t size,
                           ckpt_error *err);
/* The index of the symbol after symbol `at`, or 0 after the last one. */
uint32_t text_merger_next(const text_merger *m, uint32_t at);
void text_merger_release(text_merger *m);

/* ---- bytes as characters ---- */

/* Write the character that stands for a byte in a byte-level vocabulary, as UTF-8 with a NUL. */
void text_byte_name(unsigned byte, char out[4]);
/* The byte that the character at *at stands for, or -1 if it stands for none. Advances *at. */
int text_byte_of(const char **at);

#endif
