/* family_text.h: a parsed family text, as the parser passes it to the expander. */
#ifndef CKPT_FAMILY_TEXT_H
#define CKPT_FAMILY_TEXT_H

#include "encoding.h"
#include "family.h"

enum {
    FAMILY_TEXT_MAX_BYTES = 1 << 20,
    FAMILY_NAME_MAX_BYTES = 256,       /* for words and names of tensors */
    FAMILY_WORDS_MAX = 32,
    FAMILY_SYMBOLS_MAX = 128,
    FAMILY_TERMS_MAX = 16,
    FAMILY_PIECES_MAX = 16,
    FAMILY_INDEXES_MAX = 4,            /* in one name */
    FAMILY_CONDITIONS_MAX = 4,
    FAMILY_DETECTS_MAX = 8,
    FAMILY_INSIDES_MAX = 2,
    FAMILY_CHOICES_MAX = 8             /* strings of a detect line or a list */
};

typedef enum {
    SYMBOL_UNKNOWN = 0,                /* used, but not defined yet */
    SYMBOL_VARIABLE,
    SYMBOL_LIST,
    SYMBOL_INDEX
} family_symbol_kind;

/* One operand, and the operator before it ('+' for the first one). */
typedef struct {
    char op;
    char is_number;                    /* 1: `operand` is a number; 0: a symbol */
    char is_element;                   /* the value is list[operand] */
    uint32_t list;                     /* symbol, with is_element */
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

/* A literal text followed by an index: "layers." {l}. */
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
    int is_usual;                      /* `fp8` without a block: that of the blocks line */
    int is_linear;                     /* see ckpt_tensor.is_linear */
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
    uint32_t number;                   /* line number in the text, 1-based */
    uint32_t symbol;                   /* the symbol that let, list, count and position define */
    const char *word;                  /* config member, or the name of a part */
    int has_default;                   /* list: an absent member is an empty list */
    uint32_t choice_count;             /* list: its strings; a string's value is its number */
    const char *const *choices;
    family_expr value;                 /* let: the expression or the default; position: the value
                                          to find in `list` */
    uint32_t list;                     /* position: symbol */
    family_template name;              /* tensor: its name; block: its prefix */
    family_encoding encoding;
    uint32_t rank;
    const family_expr *dims;
    int has_file;
    family_expr file;
    uint32_t condition_count;
    const family_condition *conditions;
    uint32_t body_first;               /* block, part, use: lines [body_first, body_end) */
    uint32_t body_end;
    int has_optional;                  /* the body has an optional tensor */
    int may_lack;                      /* block: or-none */
} family_line;

struct ckpt_family {
    arena memory;                      /* owns all pointers below, except `lines` */
    const char *subject;
    const char *name;
    family_line *lines;                /* malloc'd */
    uint32_t line_count;
    encoding_id fp8;                   /* ENCODING_COUNT: no blocks line */
    ckpt_dtype scale_dtype;            /* of the blocks line; CKPT_NONE: it has none */
    int keeps_others;
    const char *expert_member;         /* or NULL */
    const char *int4_member;           /* or NULL */
    const char *int4_word;             /* the string that it then has */
    uint32_t symbol_count;
    family_symbol symbols[FAMILY_SYMBOLS_MAX];
    uint32_t detect_count;
    struct {
        const char *member;
        const char *values[FAMILY_CHOICES_MAX];
        uint32_t value_count;
    } detects[FAMILY_DETECTS_MAX];
    uint32_t language_count;
    const char *language[FAMILY_CHOICES_MAX];   /* further model_types of a part of a config */
    uint32_t inside_count;
    struct {
        const char *names;
        const char *types[FAMILY_CHOICES_MAX];
        uint32_t type_count;
    } insides[FAMILY_INSIDES_MAX];
};

/* Find the encoding with this word; 0: there is none. */
int family_encoding_find(const char *word, family_encoding *out);

#endif
