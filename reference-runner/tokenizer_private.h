/* tokenizer_private.h: a tokenizer.json as it is used. */
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
    int is_normalized;         /* these are looked for after the others */
} text_added;

typedef struct {
    uint64_t pair;             /* left id in the upper half */
    uint32_t rank;
    uint32_t id;               /* what they become */
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
    int ignore_merges;         /* a piece that is a token stays one */
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

/* Begins with zeros; kept from piece to piece. */
typedef struct {
    text_symbol *symbols;      /* the first is what the piece begins with */
    text_candidate *heap;
    size_t heap_count;
    size_t capacity;           /* bytes of a piece */
} text_merger;

/* Merge what can be merged of a piece of one byte or more. */
ckpt_code text_merge_piece(const run_text *text, text_merger *m, const char *bytes, size_t size,
                           ckpt_error *err);
/* The symbol behind symbol `at` of what is left, or 0 behind the last. */
uint32_t text_merger_next(const text_merger *m, uint32_t at);
void text_merger_release(text_merger *m);

/* ---- bytes as characters ---- */

/* The character that stands for a byte in a byte-level vocabulary, as UTF-8. */
void text_byte_name(unsigned byte, char out[4]);
/* The byte of the character at *at, which moves on; -1: none. */
int text_byte_of(const char **at);

#endif
