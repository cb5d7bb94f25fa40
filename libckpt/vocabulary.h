/*
 * vocabulary.h: a tokenizer as data, wherever it is stored: in tokenizer.json and the files beside
 * it, or in the keys of a GGUF file.
 */
#ifndef CKPT_VOCABULARY_H
#define CKPT_VOCABULARY_H

#include <stdint.h>

#include "arena.h"
#include "error.h"

/* Types of tokens, as llama.cpp numbers them. */
enum { TOKEN_NORMAL = 1, TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4, TOKEN_UNUSED = 5 };

enum { VOCABULARY_MAX = 1 << 24, VOCABULARY_BYTES_MAX = 1 << 28 };

typedef enum { SPECIAL_BOS, SPECIAL_EOS, SPECIAL_PAD, SPECIAL_COUNT } vocabulary_special;
typedef enum { FLAG_ADD_BOS, FLAG_ADD_EOS, FLAG_COUNT } vocabulary_flag;

/* Its memory is counted by memory.h. */
typedef struct {
    arena memory;                  /* of all texts */
    const char **tokens;           /* by id; NULL: no token has this id */
    int32_t *types;                /* by id */
    uint64_t count;                /* of ids */
    uint64_t type_count;           /* the same, except after a failure */
    const char **merges;           /* "a b", the first with the best rank */
    uint64_t merge_count;          /* 0: it says none */
    int64_t specials[SPECIAL_COUNT];   /* ids; -1: it does not say */
    int flags[FLAG_COUNT];         /* 0, 1; -1: it does not say */
    const char *chat_template;     /* NULL: none */
} ckpt_vocabulary;

/* An empty vocabulary, which says nothing. */
void vocabulary_init(ckpt_vocabulary *v);
void vocabulary_release(ckpt_vocabulary *v);

/* Set the token of an id, for which the vocabulary grows. An id has one text. */
ckpt_code vocabulary_set(ckpt_vocabulary *v, uint64_t id, const char *text, int32_t type,
                         ckpt_error *err);
ckpt_code vocabulary_add_merge(ckpt_vocabulary *v, const char *text, ckpt_error *err);
/* The id of a token's text; 0: there is none. */
int vocabulary_find(const ckpt_vocabulary *v, const char *text, uint64_t *id);

/* The keys of llama.cpp: "tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token". */
const char *vocabulary_special_key(vocabulary_special special);
const char *vocabulary_flag_key(vocabulary_flag flag);

#define VOCABULARY_TOKENS_KEY "tokenizer.ggml.tokens"
#define VOCABULARY_TYPES_KEY "tokenizer.ggml.token_type"
#define VOCABULARY_MERGES_KEY "tokenizer.ggml.merges"
#define VOCABULARY_TEMPLATE_KEY "tokenizer.chat_template"

#endif
