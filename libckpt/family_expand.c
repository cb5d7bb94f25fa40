/* Expands a family text with the numbers of a config to a catalog of tensors. */
#include "family.h"

#include <stdio.h>
#include <string.h>

#include "family_text.h"
#include "config_number.h"
#include "encoding.h"
#include "memory.h"
#include "tensor_class.h"
#include "text.h"

/* Limit of the steps of an expansion: every tensor, and as many lines that make none. Lower when
 * fuzzing, where long expansions would take most of the time. */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
enum { TENSORS_MAX = 1 << 13, STEPS_MAX = 1 << 15 };
#else
enum { TENSORS_MAX = FAMILY_TENSORS_MAX, STEPS_MAX = 2 * FAMILY_TENSORS_MAX };
#endif

/* Where a symbol's value is valid. */
typedef enum { UNSET = 0, SET_FOR_ALL, SET_FOR_STEP } scope;

typedef struct {
    const ckpt_family *family;
    const json_value *config;
    ckpt_error *err;
    ckpt_catalog *catalog;             /* NULL during the first pass, which only counts */
    uint32_t tensor_count;
    arena memory;                      /* lists */
    int want_optional;                 /* 1: only optional tensors; 0: only required ones */
    int experts_fp8;
    int has_int4;
    int experts_told;                  /* the config has the member of experts-told-by */
    int broken_groups;                 /* the first pass found FP4 rows that are not whole groups */
    ckpt_dtype scale_dtype;
    uint32_t step_count;
    scope now;                         /* scope of variables that are set now */
    const family_line *line;           /* the current line, for errors */
    uint32_t file;                     /* of the block, 0-based */
    char name[FAMILY_NAME_MAX_BYTES];  /* begins with the block's prefix */
    uint32_t prefix_bytes;
    scope set[FAMILY_SYMBOLS_MAX];
    uint64_t value[FAMILY_SYMBOLS_MAX];    /* lists: number of elements */
    const uint64_t *list[FAMILY_SYMBOLS_MAX];
} expander;

/* The indexes of a name that the surrounding block has not set. They step through all combinations,
 * the last one fastest. */
typedef struct {
    uint32_t count;
    uint32_t symbols[FAMILY_INDEXES_MAX];
    uint64_t from[FAMILY_INDEXES_MAX];
    uint64_t to[FAMILY_INDEXES_MAX];
} odometer;

/* Fail because of the config; the error names its members. */
#define FAIL(x, ...) ckpt_fail((x)->err, CKPT_E_FORMAT, __VA_ARGS__)

/* Fail because of the family text; the error has the line number. */
#define FAIL_TEXT(x, ...) fail_at((x), ckpt_fail((x)->err, CKPT_E_FORMAT, __VA_ARGS__))

/* Prefix the error text that was just written with its place. */
static ckpt_code fail_at(expander *x, ckpt_code code)
{
    if (x->err == NULL)
        return code;
    return ckpt_fail(x->err, code, "'%s' line %u: %s", x->family->subject, x->line->number,
                     x->err->text);
}

static unsigned long long llu(uint64_t number)
{
    return number;
}

static ckpt_code set_symbol(expander *x, uint32_t symbol, uint64_t value)
{
    if (x->set[symbol] != UNSET)
        return FAIL_TEXT(x, "'%s' is set twice", x->family->symbols[symbol].name);
    x->set[symbol] = x->now;
    x->value[symbol] = value;
    return CKPT_OK;
}

/* The config member from which a symbol gets its value; the symbol's name if there is none. */
static const char *member_of(const expander *x, const char *name, size_t length)
{
    const ckpt_family *f = x->family;

    for (uint32_t i = 0; i < f->line_count; i++) {
        const family_line *line = &f->lines[i];
        const char *symbol;

        if (line->kind != LINE_LET_MEMBER && line->kind != LINE_LIST && line->kind != LINE_COUNT)
            continue;
        symbol = f->symbols[line->symbol].name;
        if (strlen(symbol) == length && memcmp(symbol, name, length) == 0)
            return line->word;
    }
    return NULL;
}

/* Write an expression with the names of config members: "num_attention_heads*head_dim/o_groups". */
typedef struct {
    char text[256];
} expr_words;

static expr_words expr_in_words(const expander *x, const family_expr *expr)
{
    expr_words out = { "" };
    size_t used = 0;

    for (const char *at = expr->text; *at != '\0' && used < sizeof out.text;) {
        const size_t length = strcspn(at, "+-*/%[]");
        const char *word = length == 0 ? NULL : member_of(x, at, length);

        used += (size_t)snprintf(out.text + used, sizeof out.text - used, "%.*s",
                                 word != NULL ? (int)strlen(word) : (int)(length > 0 ? length : 1),
                                 word != NULL ? word : at);
        at += length > 0 ? length : 1;
    }
    return out;
}

/* ---- expressions ---- */

static const char *list_word(const expander *x, uint32_t list)
{
    const char *name = x->family->symbols[list].name;
    const char *word = member_of(x, name, strlen(name));

    return word == NULL ? name : word;
}

static ckpt_code term_value(expander *x, const family_term *term, uint64_t *out)
{
    const family_symbol *symbols = x->family->symbols;

    *out = term->operand;
    if (!term->is_number) {
        if (x->set[term->operand] == UNSET)
            return FAIL_TEXT(x, "'%s' is undefined here", symbols[term->operand].name);
        *out = x->value[term->operand];
    }
    if (term->is_element) {
        if (*out >= x->value[term->list])
            return FAIL(x, "config list '%s' has %s, no element %llu", list_word(x, term->list),
                        text_count(x->value[term->list], "element", "elements").text, llu(*out));
        *out = x->list[term->list][*out];
    }
    return CKPT_OK;
}

static ckpt_code expr_value(expander *x, const family_expr *expr, uint64_t *out)
{
    const char *problem;
    uint64_t operand;
    ckpt_code code;

    *out = 0;
    for (uint32_t i = 0; i < expr->count; i++) {
        if ((code = term_value(x, &expr->terms[i], &operand)) != CKPT_OK)
            return code;
        if (expr->terms[i].op == '/' && operand != 0 && *out % operand != 0)
            return FAIL(x, "'%s': %llu is not a multiple of %llu", expr_in_words(x, expr).text,
                        llu(*out), llu(operand));
        if ((problem = config_number_step(expr->terms[i].op, operand, out)) != NULL)
            return FAIL(x, "'%s' %s", expr_in_words(x, expr).text, problem);
    }
    return CKPT_OK;
}

static int compare_holds(family_compare compare, uint64_t left, uint64_t right)
{
    switch (compare) {
    case COMPARE_EQUAL:
        return left == right;
    case COMPARE_DIFFERENT:
        return left != right;
    case COMPARE_LESS:
        return left < right;
    case COMPARE_LESS_EQUAL:
        return left <= right;
    case COMPARE_GREATER:
        return left > right;
    default:
        return left >= right;
    }
}

/* The index of a value in a list; the length of the list when it is absent. */
static uint64_t list_position(const expander *x, uint32_t list, uint64_t value)
{
    uint64_t i = 0;

    while (i < x->value[list] && x->list[list][i] != value)
        i++;
    return i;
}

/* Stop at the first condition that is false: expressions after it may have no value. */
static ckpt_code conditions_hold(expander *x, int *out)
{
    const family_line *line = x->line;
    ckpt_code code;

    *out = 1;
    for (uint32_t i = 0; i < line->condition_count && *out; i++) {
        const family_condition *c = &line->conditions[i];
        uint64_t left;
        uint64_t right;

        if ((code = expr_value(x, &c->left, &left)) != CKPT_OK)
            return code;
        if (c->compare >= COMPARE_IN) {
            *out = (list_position(x, c->list, left) < x->value[c->list]) ==
                   (c->compare == COMPARE_IN);
            continue;
        }
        if ((code = expr_value(x, &c->right, &right)) != CKPT_OK)
            return code;
        *out = compare_holds(c->compare, left, right);
    }
    return CKPT_OK;
}

/* ---- the config ---- */

static ckpt_code expand_let(expander *x)
{
    const family_line *line = x->line;
    const json_value *member;
    uint64_t value;
    ckpt_code code;

    if (line->kind == LINE_LET_MEMBER && (member = config_member(x->config, line->word)) != NULL) {
        if (!config_number(member, &value))
            return FAIL(x, "config member '%s' is not a non-negative integer", line->word);
    } else {
        if (line->kind == LINE_LET_MEMBER && !line->has_default)
            return FAIL(x, "config member '%s' is missing", line->word);
        if ((code = expr_value(x, &line->value, &value)) != CKPT_OK)
            return code;
    }
    return set_symbol(x, line->symbol, value);
}

/* The value of a list element: a number, or the number of a string of the line. */
static int list_value(const family_line *line, const json_value *v, uint64_t *out)
{
    const char *text = json_string(v);

    if (line->choice_count == 0)
        return config_number(v, out);
    for (*out = 0; text != NULL && *out < line->choice_count; ++*out)
        if (strcmp(line->choices[*out], text) == 0)
            return 1;
    return 0;
}

static ckpt_code expand_list(expander *x)
{
    const family_line *line = x->line;
    const json_value *array = config_member(x->config, line->word);
    const size_t count = array == NULL ? 0 : json_count(array);
    uint64_t *values;
    size_t i = 0;

    if (array == NULL && line->has_default)
        return set_symbol(x, line->symbol, 0);
    if (!json_is_array(array))
        return FAIL(x, "config member '%s' is missing or not an array", line->word);
    if ((values = arena_calloc(&x->memory, count, sizeof *values)) == NULL)
        return ckpt_fail_memory(x->err, "a list of the config", count * sizeof *values);
    for (const json_value *v = json_first(array); v != NULL; v = json_next(v), i++)
        if (!list_value(line, v, &values[i]))
            return FAIL(x, "config member '%s', element %zu, is not a %s", line->word, i,
                        line->choice_count == 0 ? "non-negative integer"
                                                : "word of the family");
    x->list[line->symbol] = values;
    return set_symbol(x, line->symbol, count);
}

static ckpt_code expand_position(expander *x)
{
    const family_line *line = x->line;
    uint64_t value;
    uint64_t position;
    ckpt_code code;

    if ((code = expr_value(x, &line->value, &value)) != CKPT_OK)
        return code;
    position = list_position(x, line->list, value);
    if (position == x->value[line->list])
        return FAIL(x, "config list '%s' has no %llu", list_word(x, line->list), llu(value));
    return set_symbol(x, line->symbol, position);
}

static ckpt_code expand_count(expander *x)
{
    const family_line *line = x->line;
    const json_value *array = config_member(x->config, line->word);

    if (array != NULL && !json_is_array(array))
        return FAIL(x, "config member '%s' is not an array", line->word);
    return set_symbol(x, line->symbol, array == NULL ? 0 : json_count(array));
}

/* Read the members of the config that decide about encodings, see family.h. */
static ckpt_code read_encodings(expander *x)
{
    const char *key = x->family->expert_member;
    const json_value *member = key == NULL ? NULL : config_member(x->config, key);
    const char *experts = json_string(member);
    const json_value *quantization = config_member(x->config, "quantization_config");
    const char *format = NULL;

    if (json_is_object(quantization))
        format = json_string(json_member(quantization, "scale_fmt"));
    if (member != NULL &&
        (experts == NULL || (strcmp(experts, "fp4") != 0 && strcmp(experts, "fp8") != 0)))
        return ckpt_fail(x->err, CKPT_E_FORMAT,
                         "config member '%s' is '%s', expected \"fp4\" or \"fp8\"", key,
                         experts == NULL ? "no string" : experts);
    x->experts_told = experts != NULL;
    x->experts_fp8 = x->experts_told ? strcmp(experts, "fp8") == 0 : x->broken_groups;
    x->has_int4 = family_has_int4(x->family, x->config);
    x->scale_dtype = CKPT_F8_E8M0;
    if (x->family->scale_dtype != CKPT_NONE)
        x->scale_dtype = x->family->scale_dtype;
    else if (x->experts_fp8 && (format == NULL || strcmp(format, "ue8m0") != 0))
        x->scale_dtype = CKPT_F32;
    return CKPT_OK;
}

/* ---- names and files ---- */

static ckpt_code append(expander *x, uint32_t *used, const char *text, size_t length)
{
    if (length >= sizeof x->name - *used)
        return FAIL_TEXT(x, "a name of more than %zu bytes", sizeof x->name - 1);
    memcpy(x->name + *used, text, length);
    *used += (uint32_t)length;
    x->name[*used] = '\0';
    return CKPT_OK;
}

/* Append a name to the first `used` bytes of x->name. */
static ckpt_code write_name(expander *x, const family_template *name, uint32_t *used)
{
    char digits[24];
    ckpt_code code;

    for (uint32_t i = 0; i < name->piece_count; i++) {
        const family_piece *piece = &name->pieces[i];
        char *digit = digits + sizeof digits;
        uint64_t number;

        if ((code = append(x, used, piece->literal, piece->literal_bytes)) != CKPT_OK)
            return code;
        if (piece->index < 0)
            continue;
        number = x->value[piece->index];
        do
            *--digit = (char)('0' + number % 10);
        while ((number /= 10) != 0);
        if ((code = append(x, used, digit, (size_t)(digits + sizeof digits - digit))) != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

static ckpt_code file_number(expander *x, const family_expr *expr, uint32_t *out)
{
    uint64_t number;
    ckpt_code code;

    if ((code = expr_value(x, expr, &number)) != CKPT_OK)
        return code;
    if (number == 0 || number > FAMILY_RANGE_MAX)
        return FAIL_TEXT(x, "file number %llu is not in 1 .. %d", llu(number), FAMILY_RANGE_MAX);
    *out = (uint32_t)number - 1;
    return CKPT_OK;
}

static ckpt_code index_range(expander *x, const family_symbol *symbol, uint64_t *from,
                             uint64_t *to)
{
    ckpt_code code;

    if ((code = expr_value(x, &symbol->from, from)) != CKPT_OK ||
        (code = expr_value(x, &symbol->to, to)) != CKPT_OK)
        return code;
    if (*from > *to || *to - *from > FAMILY_RANGE_MAX)
        return FAIL(x, "'%s' counts from %llu to %llu, expected 0 .. %d steps",
                    expr_in_words(x, &symbol->to).text, llu(*from), llu(*to), FAMILY_RANGE_MAX);
    return CKPT_OK;
}

static int odometer_has(const odometer *o, uint32_t symbol)
{
    for (uint32_t i = 0; i < o->count; i++)
        if (o->symbols[i] == symbol)
            return 1;
    return 0;
}

/* Start the indexes of a name that have no value yet; *some is 0 when one of them has an empty
 * range. All ranges are computed before an index gets its first value, so that no range can depend
 * on another index of the same name. */
static ckpt_code odometer_begin(expander *x, const family_template *name, odometer *o, int *some)
{
    ckpt_code code;

    o->count = 0;
    *some = 1;
    for (uint32_t i = 0; i < name->piece_count; i++) {
        const int32_t index = name->pieces[i].index;
        const uint32_t symbol = (uint32_t)index;
        const uint32_t at = o->count;

        if (index < 0 || x->set[symbol] != UNSET || odometer_has(o, symbol))
            continue;
        if (at == FAMILY_INDEXES_MAX)
            return FAIL_TEXT(x, "a name with more than %d indexes", FAMILY_INDEXES_MAX);
        if ((code = index_range(x, &x->family->symbols[symbol], &o->from[at], &o->to[at])) !=
            CKPT_OK)
            return code;
        o->symbols[at] = symbol;
        o->count++;
        *some &= o->from[at] < o->to[at];
    }
    for (uint32_t i = 0; i < o->count; i++) {
        x->set[o->symbols[i]] = SET_FOR_ALL;
        x->value[o->symbols[i]] = o->from[i];
    }
    return CKPT_OK;
}

/* Advance to the next combination of indexes; 0 after the last. */
static int odometer_step(expander *x, const odometer *o)
{
    for (uint32_t i = o->count; i-- > 0;) {
        const uint32_t symbol = o->symbols[i];

        if (++x->value[symbol] < o->to[i])
            return 1;
        x->value[symbol] = o->from[i];
    }
    return 0;
}

static void odometer_end(expander *x, const odometer *o)
{
    for (uint32_t i = 0; i < o->count; i++)
        x->set[o->symbols[i]] = UNSET;
}

/* ---- lines ---- */

/* Weights of a model of which only experts have codes. */
static void set_int4(ckpt_tensor *tensor)
{
    size_t digits;

    if (tensor_expert_number(tensor->name, &digits) == NULL) {
        tensor->dtype = CKPT_BF16;
        return;
    }
    encoding_set(tensor, ENCODING_INT4_32, CKPT_BF16);
    tensor->part_names = CKPT_NAMES_PACKED;
    tensor->shape_dtype = CKPT_I32;
    tensor->stored_dtype = CKPT_I32;
}

static void set_encoding(expander *x, ckpt_tensor *tensor)
{
    const family_encoding *encoding = &x->line->encoding;
    const encoding_id fp8 = x->family->fp8 == ENCODING_COUNT ? ENCODING_FP8_128 : x->family->fp8;

    tensor->is_linear = (uint8_t)encoding->is_linear;
    if (x->has_int4 && encoding->is_linear) {
        set_int4(tensor);
    } else if (encoding->dtype != CKPT_NONE) {
        tensor->dtype = encoding->dtype;
    } else if (encoding->scaled == ENCODING_FP4_32 && !x->experts_fp8) {
        encoding_set(tensor, ENCODING_FP4_32, CKPT_F8_E8M0);
        tensor->stored_dtype = CKPT_I8;
    } else if (encoding->scaled == ENCODING_FP4_32 || encoding->is_usual) {
        encoding_set(tensor, fp8, x->scale_dtype);
    } else {
        encoding_set(tensor, encoding->scaled, x->scale_dtype);
    }
}

/* Add one tensor; all indexes have values. */
static ckpt_code add_tensor(expander *x, const ckpt_tensor *shape)
{
    ckpt_tensor tensor = *shape;
    uint32_t used = x->prefix_bytes;
    ckpt_code code;

    if ((code = write_name(x, &x->line->name, &used)) != CKPT_OK)
        return code;
    tensor.name = x->name;
    set_encoding(x, &tensor);
    if ((code = catalog_check_shape(&tensor, x->err)) != CKPT_OK)      /* due to the config */
        return code;
    code = catalog_add(x->catalog, &tensor, x->err);
    return code == CKPT_E_FORMAT ? fail_at(x, code) : code;
}

/* The first pass: count one tensor. */
static ckpt_code look_at_groups(expander *x)
{
    const family_line *line = x->line;
    uint64_t cols;
    ckpt_code code;

    if (line->encoding.dtype != CKPT_NONE || line->encoding.scaled != ENCODING_FP4_32 ||
        line->rank == 0)
        return CKPT_OK;
    if ((code = expr_value(x, &line->dims[line->rank - 1], &cols)) == CKPT_OK)
        x->broken_groups |= cols % encoding_at(ENCODING_FP4_32)->block_cols != 0;
    return code;
}

static ckpt_code expand_tensor(expander *x)
{
    const family_line *line = x->line;
    ckpt_tensor shape = { .file = x->file, .rank = line->rank };
    odometer o;
    ckpt_code code;
    int some;

    if ((line->kind == LINE_OPTIONAL) != (x->want_optional != 0))
        return CKPT_OK;
    if ((code = odometer_begin(x, &line->name, &o, &some)) != CKPT_OK)
        return code;
    for (int more = some; more; more = odometer_step(x, &o)) {
        int holds;

        if (++x->step_count > STEPS_MAX)
            return FAIL(x, "more than %d steps", STEPS_MAX);
        if ((code = conditions_hold(x, &holds)) != CKPT_OK)
            return code;
        if (!holds)
            continue;
        if (++x->tensor_count > TENSORS_MAX)
            return ckpt_fail(x->err, CKPT_E_FORMAT, "the config requires more than %d tensors",
                             TENSORS_MAX);
        if (x->catalog == NULL) {
            if ((code = look_at_groups(x)) != CKPT_OK)
                return code;
            continue;
        }
        for (uint32_t i = 0; i < line->rank; i++)
            if ((code = expr_value(x, &line->dims[i], &shape.shape[i])) != CKPT_OK)
                return code;
        if (line->has_file && (code = file_number(x, &line->file, &shape.file)) != CKPT_OK)
            return code;
        if ((code = add_tensor(x, &shape)) != CKPT_OK)
            return code;
    }
    odometer_end(x, &o);
    return CKPT_OK;
}

/* Process any line except block and use. */
static ckpt_code expand_line(expander *x, const family_line *line)
{
    int holds;
    ckpt_code code;

    x->line = line;
    if (++x->step_count > STEPS_MAX)
        return FAIL(x, "more than %d steps", STEPS_MAX);
    switch (line->kind) {
    case LINE_LIST:
        return expand_list(x);
    case LINE_COUNT:
        return expand_count(x);
    case LINE_LET_MEMBER:
    case LINE_LET_EXPR:
        if ((code = conditions_hold(x, &holds)) != CKPT_OK)
            return code;
        return holds ? expand_let(x) : CKPT_OK;
    case LINE_POSITION:
        if ((code = conditions_hold(x, &holds)) != CKPT_OK)
            return code;
        return holds ? expand_position(x) : CKPT_OK;
    case LINE_TENSOR:
    case LINE_OPTIONAL:
        return expand_tensor(x);
    default:
        return CKPT_OK;
    }
}

/* Process the lines of a block for one step of its indexes. A part has no block and no use, so this
 * does not recurse. */
static ckpt_code expand_body(expander *x, const family_line *block)
{
    const family_line *lines = x->family->lines;
    ckpt_code code;

    for (uint32_t i = block->body_first; i < block->body_end; i++) {
        if (lines[i].kind != LINE_USE) {
            if ((code = expand_line(x, &lines[i])) != CKPT_OK)
                return code;
            continue;
        }
        for (uint32_t j = lines[i].body_first; j < lines[i].body_end; j++)
            if ((code = expand_line(x, &lines[j])) != CKPT_OK)
                return code;
    }
    return CKPT_OK;
}

static ckpt_code expand_block(expander *x, const family_line *block)
{
    odometer o;
    int some;
    ckpt_code code;

    x->line = block;
    if (x->want_optional && !block->has_optional)
        return CKPT_OK;
    if ((code = odometer_begin(x, &block->name, &o, &some)) != CKPT_OK)
        return code;
    x->now = SET_FOR_STEP;
    for (int more = some; more; more = odometer_step(x, &o)) {
        x->line = block;
        x->prefix_bytes = 0;
        if (++x->step_count > STEPS_MAX)
            return FAIL(x, "more than %d steps", STEPS_MAX);
        if ((code = write_name(x, &block->name, &x->prefix_bytes)) != CKPT_OK ||
            (code = file_number(x, &block->file, &x->file)) != CKPT_OK ||
            (code = expand_body(x, block)) != CKPT_OK)
            return code;
        for (uint32_t i = 0; i < x->family->symbol_count; i++)
            if (x->set[i] == SET_FOR_STEP)
                x->set[i] = UNSET;
    }
    x->now = SET_FOR_ALL;
    x->prefix_bytes = 0;
    odometer_end(x, &o);
    return CKPT_OK;
}

static ckpt_code expand_all(expander *x)
{
    const ckpt_family *f = x->family;
    ckpt_code code;

    if ((code = read_encodings(x)) != CKPT_OK)
        return code;
    x->now = SET_FOR_ALL;
    for (uint32_t i = 0; i < f->line_count; i++) {
        const family_line *line = &f->lines[i];

        if (line->kind == LINE_BLOCK || line->kind == LINE_PART) {
            if (line->kind == LINE_BLOCK && (code = expand_block(x, line)) != CKPT_OK)
                return code;
            i = line->body_end - 1;
            continue;
        }
        if ((code = expand_line(x, line)) != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

/* The first pass. A small config may describe millions of tensors: count them before allocating. */
static ckpt_code check_count(expander *from)
{
    enum { SLOT_BYTES = 24, NAME_BYTES = 40 };
    expander x = *from;
    uint64_t bytes;
    char what[80];
    ckpt_code code;

    arena_init(&x.memory);
    code = expand_all(&x);
    arena_release(&x.memory);
    from->broken_groups = x.broken_groups;
    bytes = (uint64_t)x.tensor_count * (sizeof(ckpt_tensor) + 2 * SLOT_BYTES + NAME_BYTES);
    if (code != CKPT_OK || memory_has(bytes))
        return code;
    snprintf(what, sizeof what, "the %u tensors that config.json requires", x.tensor_count);
    return ckpt_fail_memory(x.err, what, bytes);
}

static ckpt_code expand(expander *x, ckpt_catalog **out)
{
    ckpt_code code;

    if (!json_is_object(x->config))
        return ckpt_fail(x->err, CKPT_E_FORMAT, "the config is not a JSON object");
    if ((code = check_count(x)) != CKPT_OK)
        return code;
    if ((x->catalog = catalog_create()) == NULL)
        return ckpt_fail_memory(x->err, "a catalog", sizeof *x->catalog);
    arena_init(&x->memory);
    code = expand_all(x);
    arena_release(&x->memory);
    if (code != CKPT_OK) {
        catalog_free(x->catalog);
        return code;
    }
    *out = x->catalog;
    return CKPT_OK;
}

ckpt_code family_expand(const ckpt_family *family, const json_value *config, ckpt_catalog **out,
                        ckpt_error *err)
{
    expander x = { .family = family, .config = config, .err = err };

    return expand(&x, out);
}

ckpt_code family_expand_optional(const ckpt_family *family, const json_value *config,
                                 ckpt_catalog **out, ckpt_error *err)
{
    expander x = { .family = family, .config = config, .err = err, .want_optional = 1 };

    return expand(&x, out);
}

int family_has_optional(const ckpt_family *family, const json_value *config, const char *name)
{
    ckpt_catalog *catalog;
    int found;

    if (family_expand_optional(family, config, &catalog, NULL) != CKPT_OK)
        return 0;
    found = ckpt_catalog_find(catalog, name) != CKPT_NOT_FOUND;
    catalog_free(catalog);
    return found;
}
