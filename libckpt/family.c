/* The parser of family texts. A text is checked completely before any config is read. */
#include "family.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "family_parse.h"

/* ---- lines ---- */

/* Append a line of the given kind, for the caller to fill. Invalidates pointers to lines. */
static ckpt_code add_line(family_parser *p, family_line_kind kind, family_line **out)
{
    ckpt_family *f = p->family;
    family_line *lines =
        array_room(f->lines, f->line_count, sizeof *lines, "a family text", p->err);

    if (lines == NULL)
        return CKPT_E_MEMORY;
    f->lines = lines;
    *out = &lines[f->line_count++];
    memset(*out, 0, sizeof **out);
    (*out)->kind = kind;
    (*out)->number = p->line;
    return CKPT_OK;
}

static ckpt_code parse_family(family_parser *p)
{
    ckpt_code code;

    if (p->family->name != NULL)
        return FAIL(p, "a second family");
    if ((code = family_take_word(p, "the name of the family", &p->family->name)) != CKPT_OK)
        return code;
    return family_expect_end(p);
}

/* Append the words up to the end of the line to a list. */
static ckpt_code take_words(family_parser *p, const char **list, uint32_t *count)
{
    ckpt_code code = CKPT_OK;

    while (code == CKPT_OK && family_peek_word(p) != NULL) {
        if (*count == FAMILY_CHOICES_MAX)
            return FAIL(p, "more than %d values", FAMILY_CHOICES_MAX);
        code = family_take_word(p, "a value", &list[(*count)++]);
    }
    return code;
}

static ckpt_code parse_detect(family_parser *p)
{
    ckpt_family *f = p->family;
    const uint32_t i = f->detect_count;
    ckpt_code code;

    if (i == FAMILY_DETECTS_MAX)
        return FAIL(p, "more than %d detect lines", FAMILY_DETECTS_MAX);
    if ((code = family_take_word(p, "a config member", &f->detects[i].member)) != CKPT_OK)
        return code;
    f->detect_count++;
    return take_words(p, f->detects[i].values, &f->detects[i].value_count);
}

static ckpt_code parse_language(family_parser *p)
{
    return take_words(p, p->family->language, &p->family->language_count);
}

static ckpt_code parse_inside(family_parser *p)
{
    ckpt_family *f = p->family;
    const uint32_t i = f->inside_count;
    ckpt_code code;

    if (i == FAMILY_INSIDES_MAX)
        return FAIL(p, "more than %d inside lines", FAMILY_INSIDES_MAX);
    if ((code = family_take_word(p, "a naming style", &f->insides[i].names)) != CKPT_OK)
        return code;
    f->inside_count++;
    return take_words(p, f->insides[i].types, &f->insides[i].type_count);
}

/* blocks fp8:128x128 [f32] */
static ckpt_code parse_blocks(family_parser *p)
{
    ckpt_family *f = p->family;
    family_encoding encoding;
    const char *word = family_peek_word(p);
    ckpt_code code;

    if (f->fp8 != ENCODING_COUNT)
        return FAIL(p, "a second blocks line");
    if (word == NULL || strncmp(word, "fp8:", 4) != 0)
        return FAIL(p, "'%s' has no block: as in fp8:128x128", word == NULL ? "" : word);
    if ((code = family_take_encoding(p, &encoding)) != CKPT_OK)
        return code;
    f->fp8 = encoding.scaled;
    if (family_take_if(p, "f32"))
        f->scale_dtype = CKPT_F32;
    return family_expect_end(p);
}

static ckpt_code parse_experts(family_parser *p)
{
    ckpt_code code;

    if (p->family->expert_member != NULL)
        return FAIL(p, "a second experts-told-by line");
    if ((code = family_take_word(p, "a config member", &p->family->expert_member)) != CKPT_OK)
        return code;
    return family_expect_end(p);
}

static ckpt_code parse_int4(family_parser *p)
{
    ckpt_code code;

    if (p->family->int4_member != NULL)
        return FAIL(p, "a second experts-int4-by line");
    if ((code = family_take_word(p, "a config member", &p->family->int4_member)) != CKPT_OK ||
        (code = family_take_word(p, "its string", &p->family->int4_word)) != CKPT_OK)
        return code;
    return family_expect_end(p);
}

/* others keep */
static ckpt_code parse_others(family_parser *p)
{
    if (!family_take_if(p, "keep"))
        return FAIL(p, "others keep: expected 'keep'");
    p->family->keeps_others = 1;
    return family_expect_end(p);
}

static ckpt_code parse_let(family_parser *p)
{
    family_line *line = NULL;
    ckpt_code code;

    if ((code = add_line(p, LINE_LET_MEMBER, &line)) != CKPT_OK ||
        (code = family_define_symbol(p, SYMBOL_VARIABLE, &line->symbol)) != CKPT_OK)
        return code;
    if (family_take_if(p, "=")) {
        line->kind = LINE_LET_EXPR;
        if ((code = family_take_expr(p, "an expression", &line->value)) != CKPT_OK)
            return code;
    } else {
        if ((code = family_take_word(p, "a config member", &line->word)) != CKPT_OK)
            return code;
        line->has_default = family_peek_word(p) != NULL && strcmp(family_peek_word(p), "if") != 0;
        if (line->has_default && (code = family_take_expr(p, "a default", &line->value)) != CKPT_OK)
            return code;
    }
    return family_take_conditions(p, line);
}

/* The strings of a list, up to the end of the line. */
static ckpt_code take_choices(family_parser *p, family_line *line)
{
    const char *choices[FAMILY_CHOICES_MAX];
    ckpt_code code;

    while (family_peek_word(p) != NULL) {
        if (line->choice_count == FAMILY_CHOICES_MAX)
            return FAIL(p, "more than %d words", FAMILY_CHOICES_MAX);
        if ((code = family_take_word(p, "a word", &choices[line->choice_count++])) != CKPT_OK)
            return code;
    }
    line->choices = family_keep(p, choices, line->choice_count, sizeof choices[0]);
    return line->choices == NULL ? family_fail_memory(p) : CKPT_OK;
}

static ckpt_code parse_list(family_parser *p)
{
    family_line *line = NULL;
    size_t length;
    ckpt_code code;

    if ((code = add_line(p, LINE_LIST, &line)) != CKPT_OK ||
        (code = family_define_symbol(p, SYMBOL_LIST, &line->symbol)) != CKPT_OK ||
        (code = family_take_word(p, "a config member", &line->word)) != CKPT_OK)
        return code;
    length = strlen(line->word);
    line->has_default = length > 1 && line->word[length - 1] == '?';
    if (line->has_default &&
        (line->word = arena_strdup(&p->family->memory, line->word, length - 1)) == NULL)
        return family_fail_memory(p);
    return take_choices(p, line);
}

static ckpt_code parse_count(family_parser *p)
{
    family_line *line = NULL;
    ckpt_code code;

    if ((code = add_line(p, LINE_COUNT, &line)) != CKPT_OK ||
        (code = family_define_symbol(p, SYMBOL_VARIABLE, &line->symbol)) != CKPT_OK ||
        (code = family_take_word(p, "a config member", &line->word)) != CKPT_OK)
        return code;
    return family_expect_end(p);
}

static ckpt_code parse_position(family_parser *p)
{
    family_line *line = NULL;
    ckpt_code code;

    if ((code = add_line(p, LINE_POSITION, &line)) != CKPT_OK ||
        (code = family_define_symbol(p, SYMBOL_VARIABLE, &line->symbol)) != CKPT_OK ||
        (code = family_take_list(p, &line->list)) != CKPT_OK ||
        (code = family_take_expr(p, "a value", &line->value)) != CKPT_OK)
        return code;
    return family_take_conditions(p, line);
}

static ckpt_code parse_index(family_parser *p)
{
    family_expr from;
    family_expr to;
    uint32_t symbol;
    ckpt_code code;

    if ((code = family_define_symbol(p, SYMBOL_INDEX, &symbol)) != CKPT_OK ||
        (code = family_take_expr(p, "the first value", &from)) != CKPT_OK ||
        (code = family_take_expr(p, "the end of the range", &to)) != CKPT_OK)
        return code;
    p->family->symbols[symbol].from = from;
    p->family->symbols[symbol].to = to;
    return family_expect_end(p);
}

static ckpt_code parse_block(family_parser *p)
{
    family_line *line = NULL;
    ckpt_code code;

    if ((code = add_line(p, LINE_BLOCK, &line)) != CKPT_OK ||
        (code = family_take_template(p, &line->name)) != CKPT_OK)
        return code;
    if (!family_take_if(p, "file"))
        return FAIL(p, "a block needs the number of its file: file EXPR");
    if ((code = family_take_expr(p, "a file number", &line->file)) != CKPT_OK)
        return code;
    line->may_lack = family_take_if(p, "or-none");
    p->open = p->family->line_count - 1;
    line->body_first = p->family->line_count;
    return family_expect_end(p);
}

static family_line *find_part(const family_parser *p, const char *name)
{
    const ckpt_family *f = p->family;

    for (uint32_t i = 0; i < f->line_count; i++)
        if (f->lines[i].kind == LINE_PART && f->lines[i].word != NULL &&
            strcmp(f->lines[i].word, name) == 0)
            return &f->lines[i];
    return NULL;
}

static ckpt_code parse_part(family_parser *p)
{
    const char *name;
    family_line *line = NULL;
    ckpt_code code;

    if ((code = family_take_word(p, "the name of the part", &name)) != CKPT_OK)
        return code;
    if (find_part(p, name) != NULL)
        return FAIL(p, "a second part '%s'", name);
    if ((code = add_line(p, LINE_PART, &line)) != CKPT_OK)
        return code;
    line->word = name;
    p->open = p->family->line_count - 1;
    line->body_first = p->family->line_count;
    return family_expect_end(p);
}

static ckpt_code parse_use(family_parser *p)
{
    const family_line *part;
    family_line *line = NULL;
    ckpt_code code;

    if ((code = add_line(p, LINE_USE, &line)) != CKPT_OK ||
        (code = family_take_word(p, "the name of a part", &line->word)) != CKPT_OK)
        return code;
    if (p->open < 0 || p->family->lines[p->open].kind != LINE_BLOCK)
        return FAIL(p, "use is only allowed in a block");
    if ((part = find_part(p, line->word)) == NULL)
        return FAIL(p, "no part '%s' before this line", line->word);
    line->body_first = part->body_first;
    line->body_end = part->body_end;
    p->family->lines[p->open].has_optional |= part->has_optional;
    return family_expect_end(p);
}

static ckpt_code parse_end(family_parser *p)
{
    if (p->open < 0)
        return FAIL(p, "end without a block or part");
    p->family->lines[p->open].body_end = p->family->line_count;
    p->open = -1;
    return family_expect_end(p);
}

static ckpt_code parse_any_tensor(family_parser *p, family_line_kind kind)
{
    family_line *line = NULL;
    ckpt_code code;

    if ((code = add_line(p, kind, &line)) != CKPT_OK ||
        (code = family_take_template(p, &line->name)) != CKPT_OK ||
        (code = family_take_encoding(p, &line->encoding)) != CKPT_OK ||
        (code = family_take_dims(p, line)) != CKPT_OK)
        return code;
    line->has_file = family_take_if(p, "file");
    if (line->has_file != (p->open < 0))
        return FAIL(p, "a tensor has a file number if and only if it is outside a block");
    if (line->has_file && (code = family_take_expr(p, "a file number", &line->file)) != CKPT_OK)
        return code;
    if (kind == LINE_OPTIONAL && p->open >= 0)
        p->family->lines[p->open].has_optional = 1;
    return family_take_conditions(p, line);
}

static ckpt_code parse_tensor(family_parser *p)
{
    return parse_any_tensor(p, LINE_TENSOR);
}

static ckpt_code parse_optional(family_parser *p)
{
    return parse_any_tensor(p, LINE_OPTIONAL);
}

static ckpt_code parse_line(family_parser *p)
{
    static const struct {
        const char *word;
        int inside;                    /* allowed in a block or part */
        ckpt_code (*parse)(family_parser *p);
    } kinds[] = {
        { "family", 0, parse_family }, { "detect", 0, parse_detect },
        { "language", 0, parse_language }, { "inside", 0, parse_inside },
        { "blocks", 0, parse_blocks }, { "others", 0, parse_others },
        { "experts-told-by", 0, parse_experts },
        { "experts-int4-by", 0, parse_int4 },
        { "let", 1, parse_let },       { "list", 0, parse_list },
        { "count", 0, parse_count },   { "index", 0, parse_index },
        { "position", 1, parse_position },
        { "block", 0, parse_block },   { "part", 0, parse_part },
        { "use", 1, parse_use },       { "end", 1, parse_end },
        { "tensor", 1, parse_tensor }, { "optional", 1, parse_optional },
    };
    const char *word = p->words[p->next++];

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i].word, word) != 0)
            continue;
        if (!kinds[i].inside && p->open >= 0)
            return FAIL(p, "'%s' is not allowed in a block or part", word);
        return kinds[i].parse(p);
    }
    return FAIL(p, "unknown word '%s'", word);
}

/* Checks that need all lines. */
static ckpt_code check_whole(family_parser *p)
{
    const ckpt_family *f = p->family;

    if (p->open >= 0) {
        p->line = f->lines[p->open].number;
        return FAIL(p, "no end of this block or part");
    }
    for (uint32_t i = 0; i < f->symbol_count; i++) {
        if (f->symbols[i].kind == SYMBOL_UNKNOWN) {
            p->line = f->symbols[i].line;
            return FAIL(p, "unknown variable '%s'", f->symbols[i].name);
        }
    }
    if (f->name == NULL)
        return FAIL(p, "no family line");
    if (f->detect_count == 0)
        return FAIL(p, "no detect line");
    return CKPT_OK;
}

ckpt_code family_parse(const char *text, size_t size, const char *subject, ckpt_family **out,
                       ckpt_error *err)
{
    ckpt_family *family;
    family_parser p = { .err = err, .open = -1 };
    ckpt_code code = CKPT_OK;

    if (size > FAMILY_TEXT_MAX_BYTES || memchr(text, '\0', size) != NULL)
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s' is not a family text: contains NUL, or more than %d bytes",
                         subject, FAMILY_TEXT_MAX_BYTES);
    if ((family = calloc(1, sizeof *family)) == NULL)
        return family_fail_memory(&p);
    arena_init(&family->memory);
    family->fp8 = ENCODING_COUNT;
    family->scale_dtype = CKPT_NONE;
    p.family = family;
    family->subject = arena_strdup(&family->memory, subject, strlen(subject));
    p.text = arena_strdup(&family->memory, text, size);
    if (family->subject == NULL || p.text == NULL)
        code = family_fail_memory(&p);
    while (code == CKPT_OK && *p.text != '\0') {
        code = family_read_line(&p);
        if (code == CKPT_OK && p.word_count > 0)
            code = parse_line(&p);
    }
    if (code == CKPT_OK)
        code = check_whole(&p);
    if (code != CKPT_OK) {
        family_free(family);
        return code;
    }
    *out = family;
    return CKPT_OK;
}

void family_free(ckpt_family *family)
{
    if (family == NULL)
        return;
    arena_release(&family->memory);
    free(family->lines);
    free(family);
}
