/* family_text.h: a family text after parsing; what its parser hands to its expander. */
#ifndef CKPT_FAMILY_TEXT_H
#define CKPT_FAMILY_TEXT_H

#include "family.h"

enum {
    FAMILY_TEXT_MAX_BYTES = 1 << 20,
    FAMILY_NAME_MAX_BYTES = 256,       /* of a word, and of a tensor's name */
    FAMILY_WORDS_MAX = 32,
    FAMILY_SYMBOLS_MAX = 128,
    FAMILY_TERMS_MAX = 16,
    FAMILY_PIECES_MAX = 16,
    FAMILY_INDEXES_MAX = 4,            /* of one name */
    FAMILY_CONDITIONS_MAX = 4,
    FAMILY_DETECTS_MAX = 8
};

typedef enum {
    SYMBOL_UNKNOWN = 0,                /* used, and defined nowhere so far */
    SYMBOL_VARIABLE,
    SYMBOL_LIST,
    SYMBOL_INDEX
} family_symbol_kind;

/* One operand and the operation that brings it in ('+' for the first one). */
typedef struct {
    char op;
    char is_number;                    /* operand is the number itself, not a symbol */
    char is_element;                   /* the value is list[operand] */
    uint32_t list;                     /* symbol */
    uint64_t operand;
} family_term;

typedef struct {
    const char *text;
    const family_term *terms;
    uint32_t count;
} family_expr;

typedef struct {
    const char *name;
    family_symbol_kind kind;
    uint32_t line;                     /* of its first use */
    family_expr from;                  /* indexes only */
    family_expr to;
} family_symbol;

typedef enum {
    COMPARE_EQUAL,
    COMPARE_DIFFERENT,
    COMPARE_LESS,
    COMPARE_LESS_EQUAL,
    COMPARE_GREATER,
    COMPARE_GREATER_EQUAL
} family_compare;

typedef struct {
    family_expr left;
    family_expr right;
    family_compare compare;
} family_condition;

/* Literal text, then a number: "layers." {l} ".attn". */
typedef struct {
    const char *literal;
    uint32_t literal_bytes;
    int32_t index;                     /* symbol, or -1 for none */
} family_piece;

typedef struct {
    const family_piece *pieces;
    uint32_t piece_count;
} family_template;

typedef enum { ENCODING_F32, ENCODING_BF16, ENCODING_I64, ENCODING_FP8, ENCODING_FP4 }
    family_encoding;

typedef enum {
    LINE_LET_MEMBER,
    LINE_LET_EXPR,
    LINE_LIST,
    LINE_COUNT,
    LINE_BLOCK,
    LINE_PART,
    LINE_USE,
    LINE_TENSOR,
    LINE_OPTIONAL
} family_line_kind;

typedef struct {
    family_line_kind kind;
    uint32_t number;                   /* in the text, 1-based */
    uint32_t symbol;                   /* what let, list and count set */
    const char *word;                  /* config member, or the name of a part */
    int has_default;
    family_expr value;                 /* of let: the expression or the default */
    family_template name;              /* of tensors; the prefix of a block */
    family_encoding encoding;
    uint32_t rank;
    const family_expr *dims;
    int has_file;
    family_expr file;
    uint32_t condition_count;
    const family_condition *conditions;
    uint32_t body_first;               /* block, part, and use: lines [body_first, body_end) */
    uint32_t body_end;
    int has_optional;                  /* somewhere in the body */
} family_line;

struct ckpt_family {
    arena memory;                      /* every pointer below but `lines` */
    const char *subject;
    const char *name;
    family_line *lines;                /* malloc'd */
    uint32_t line_count;
    uint32_t symbol_count;
    family_symbol symbols[FAMILY_SYMBOLS_MAX];
    uint32_t detect_count;
    struct {
        const char *member;
        const char *value;
    } detects[FAMILY_DETECTS_MAX];
};

#endif
