/* family_text.h: a family text after parsing; what its parser hands to its expander. */
#ifndef CKPT_FAMILY_TEXT_H
#define CKPT_FAMILY_TEXT_H

#include "encoding.h"
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
    FAMILY_DETECTS_MAX = 8,
    FAMILY_CHOICES_MAX = 8             /* of a detect line, and words of a list */
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
    COMPARE_GREATER_EQUAL,
    COMPARE_IN,                        /* the right side is a list */
    COMPARE_NOT_IN
} family_compare;

typedef struct {
    family_expr left;
    family_expr right;
    uint32_t list;                     /* symbol, of COMPARE_IN and COMPARE_NOT_IN */
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

typedef struct {
    ckpt_dtype dtype;                  /* plain; CKPT_NONE: scaled */
    encoding_id scaled;
    int is_usual;                      /* fp8 alone: of the family's blocks */
    int is_linear;                     /* codes in quantised forms */
} family_encoding;

typedef enum {
    LINE_LET_MEMBER,
    LINE_LET_EXPR,
    LINE_LIST,
    LINE_COUNT,
    LINE_POSITION,
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
    int has_default;                   /* of a list: an absent one is empty */
    uint32_t choice_count;             /* of a list of strings: these, by number */
    const char *const *choices;
    family_expr value;                 /* of let: the expression or the default; of position: what
                                          is looked for in `list` */
    uint32_t list;                     /* symbol, of position */
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
    int may_lack;                      /* a block: all of it may be missing */
} family_line;

struct ckpt_family {
    arena memory;                      /* every pointer below but `lines` */
    const char *subject;
    const char *name;
    family_line *lines;                /* malloc'd */
    uint32_t line_count;
    encoding_id fp8;                   /* ENCODING_COUNT: no blocks line */
    ckpt_dtype scale_dtype;            /* of the blocks line; CKPT_NONE: it has none */
    int keeps_others;
    const char *expert_member;         /* or NULL */
    uint32_t symbol_count;
    family_symbol symbols[FAMILY_SYMBOLS_MAX];
    uint32_t detect_count;
    struct {
        const char *member;
        const char *values[FAMILY_CHOICES_MAX];
        uint32_t value_count;
    } detects[FAMILY_DETECTS_MAX];
};

/* The encoding that a word of a text is; 0: none. */
int family_encoding_find(const char *word, family_encoding *out);

#endif
