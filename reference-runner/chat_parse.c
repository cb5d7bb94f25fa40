/* chat_parse.c: converts an answer to a message. Accepts what DeepSeek's own parser accepts, and
 * nothing else. */
#include "chat.h"

#include <stdlib.h>
#include <string.h>

#include "chat_json.h"
#include "chat_words.h"

/* A position in the text, and what was read last: the bytes before a stop word or the end. */
typedef struct {
    const char *at;
    const char *begin;
    size_t size;
    const char *stop;          /* the stop word that was found; NULL: the end of the text */
} cursor;

/* A range of the text. */
typedef struct {
    const char *bytes;
    size_t size;
} part;

/* Read up to whichever of two stop words comes first, and skip it. `second` may be NULL. */
static const char *read_until(cursor *c, const char *first, const char *second)
{
    const char *a = strstr(c->at, first);
    const char *b = second == NULL ? NULL : strstr(c->at, second);
    const int is_second = b != NULL && (a == NULL || b < a);
    const char *found = is_second ? b : a;

    c->begin = c->at;
    c->size = found == NULL ? strlen(c->at) : (size_t)(found - c->at);
    c->stop = found == NULL ? NULL : is_second ? second : first;
    c->at += c->size + (found == NULL ? 0 : strlen(c->stop));
    return c->stop;
}

static int is_text(const cursor *c, const char *text)
{
    return c->size == strlen(text) && memcmp(c->begin, text, c->size) == 0;
}

static ckpt_code fail(const char *what, const cursor *c, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "the answer is not a message: %s, found '%.*s'", what,
                     (int)(c->size < 60 ? c->size : 60), c->begin);
}

/* If the bytes read are `before`, any text, `after` and an optional line feed, set *out to that
 * text and return 1; else return 0. */
static int take_between(const cursor *c, const char *before, const char *after, part *out)
{
    const size_t lead = strlen(before);
    const size_t tail = strlen(after);

    if (c->size < lead + tail || memcmp(c->begin, before, lead) != 0)
        return 0;
    for (size_t end = c->size - tail, tries = 0; tries < 2 && end + 1 > lead; end--, tries++)
        if (memcmp(c->begin + end, after, tail) == 0 &&
            (tries == 0 || c->begin[c->size - 1] == '\n')) {
            *out = (part){ c->begin + lead, end - lead };
            return 1;
        }
    return 0;
}

/* ---- calls ---- */

typedef struct {
    cursor c;
    part names[256];           /* names of the current call's parameters */
    size_t name_count;
    byte_buffer arguments;
    byte_buffer calls;         /* the calls so far as JSON, separated by commas */
} call_reader;

static void put(byte_buffer *out, const char *text)
{
    byte_buffer_add(out, text, strlen(text));
}

/* Split ` name="N" string="true">VALUE<`. N may contain quotes: it ends where the first complete
 * `" string="true">` or `" string="false">` begins. */
static int split_parameter(const cursor *c, part *name, part *value, int *is_string)
{
    static const char begin[] = " name=\"";
    static const char *const ends[] = { "\" string=\"false\">", "\" string=\"true\">" };
    part all;

    if (!take_between(c, begin, "<", &all))
        return 0;
    for (size_t i = 0; i < all.size; i++)
        for (int e = 0; e < 2; e++)
            if (all.size - i >= strlen(ends[e]) &&
                memcmp(all.bytes + i, ends[e], strlen(ends[e])) == 0) {
                *name = (part){ all.bytes, i };
                *value = (part){ all.bytes + i + strlen(ends[e]), all.size - i - strlen(ends[e]) };
                *is_string = e;
                return 1;
            }
    return 0;
}

static ckpt_code read_parameter(call_reader *r, ckpt_error *err)
{
    part name;
    part value;
    int is_string;

    read_until(&r->c, CHAT_PARAMETER_END, NULL);
    if (!split_parameter(&r->c, &name, &value, &is_string))
        return fail("expected name=\"...\" string=\"true|false\">...<", &r->c, err);
    for (size_t i = 0; i < r->name_count; i++)
        if (r->names[i].size == name.size && memcmp(r->names[i].bytes, name.bytes, name.size) == 0)
            return fail("expected each parameter once", &r->c, err);
    if (r->name_count == sizeof r->names / sizeof *r->names)
        return fail("expected at most 256 parameters", &r->c, err);
    put(&r->arguments, r->name_count > 0 ? ", " : "");
    r->names[r->name_count++] = name;
    chat_put_quoted(name.bytes, name.size, &r->arguments);
    put(&r->arguments, ": ");
    if (is_string)
        chat_put_quoted(value.bytes, value.size, &r->arguments);
    else
        byte_buffer_add(&r->arguments, value.bytes, value.size);
    read_until(&r->c, CHAT_PARAMETER, CHAT_INVOKE_END);
    return is_text(&r->c, ">\n") ? CKPT_OK
                                 : fail("expected a line feed after a parameter", &r->c, err);
}

/* Read `name="N">` and a line feed, after any white space. */
static int take_name(const cursor *c, part *name)
{
    cursor rest = *c;

    while (rest.size > 0 && strchr(" \t\n\r\f\v", *rest.begin) != NULL) {
        rest.begin++;
        rest.size--;
    }
    return take_between(&rest, "name=\"", "\">\n", name);
}

static ckpt_code read_call(call_reader *r, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    part name;

    r->name_count = 0;
    r->arguments.used = 0;
    read_until(&r->c, CHAT_PARAMETER, CHAT_INVOKE_END);
    if (!take_name(&r->c, &name))
        return fail("expected name=\"...\"> of a tool", &r->c, err);
    put(&r->arguments, "{");
    while (code == CKPT_OK && r->c.stop != NULL && strcmp(r->c.stop, CHAT_PARAMETER) == 0)
        code = read_parameter(r, err);
    put(&r->arguments, "}");
    if (code != CKPT_OK || r->arguments.failed)
        return code != CKPT_OK ? code : ckpt_fail_memory(err, "arguments", r->arguments.used);
    put(&r->calls, r->calls.used > 0 ? ", " : "");
    put(&r->calls, "{\"type\": \"function\", \"function\": {\"name\": ");
    chat_put_quoted(name.bytes, name.size, &r->calls);
    put(&r->calls, ", \"arguments\": ");
    chat_put_quoted(r->arguments.bytes, r->arguments.used, &r->calls);
    put(&r->calls, "}}");
    return CKPT_OK;
}

static ckpt_code read_calls(call_reader *r, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    while (*r->c.at != '\0' && code == CKPT_OK) {
        read_until(&r->c, CHAT_INVOKE, CHAT_CALLS_END);
        if (!is_text(&r->c, ">\n"))
            return fail("expected a line feed before the next tool call", &r->c, err);
        if (r->c.stop == NULL)
            return fail("expected a tool call or the end of the block", &r->c, err);
        if (strcmp(r->c.stop, CHAT_CALLS_END) == 0)
            break;
        code = read_call(r, err);
    }
    if (code != CKPT_OK)
        return code;
    read_until(&r->c, CHAT_EOS, NULL);
    return r->c.size == 0 ? CKPT_OK : fail("expected the end after the tool calls", &r->c, err);
}

/* ---- the message ---- */

/* Refuse a text that contains words which separate the sections of an answer: the answer is then
 * malformed. */
static ckpt_code check_words(const part *p, ckpt_error *err)
{
    static const char *const words[] = { CHAT_BOS, CHAT_EOS, CHAT_THINK, CHAT_THINK_END,
                                         CHAT_DSML };

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (memmem(p->bytes, p->size, words[i], strlen(words[i])) != NULL)
            return ckpt_fail(err, CKPT_E_FORMAT,
                             "the answer is not a message: '%s' inside of a text", words[i]);
    return CKPT_OK;
}

static ckpt_code read_answer(call_reader *r, int thinks, byte_buffer *out, ckpt_error *err)
{
    static const char calls[] = "\n\n" CHAT_CALLS;
    part reasoning = { r->c.at, 0 };
    part content;
    ckpt_code code = CKPT_OK;

    if (thinks) {
        if (read_until(&r->c, CHAT_THINK_END, calls) == NULL || r->c.stop == calls)
            return fail("expected " CHAT_THINK_END " after the reasoning", &r->c, err);
        reasoning = (part){ r->c.begin, r->c.size };
    }
    if (read_until(&r->c, CHAT_EOS, calls) == NULL)
        return fail("expected the end-of-sequence token", &r->c, err);
    content = (part){ r->c.begin, r->c.size };
    if (r->c.stop == calls && (code = read_calls(r, err)) != CKPT_OK)
        return code;
    if (*r->c.at != '\0')
        return ckpt_fail(err, CKPT_E_FORMAT, "the answer is not a message: it goes on after its "
                         "end");
    if ((code = check_words(&reasoning, err)) != CKPT_OK ||
        (code = check_words(&content, err)) != CKPT_OK)
        return code;
    put(out, "{\"role\": \"assistant\", \"content\": ");
    chat_put_quoted(content.bytes, content.size, out);
    put(out, ", \"reasoning_content\": ");
    chat_put_quoted(reasoning.bytes, reasoning.size, out);
    put(out, ", \"tool_calls\": [");
    byte_buffer_add(out, r->calls.bytes, r->calls.used);
    put(out, "]}");
    return out->failed || r->calls.failed ? ckpt_fail_memory(err, "an answer", out->used)
                                          : CKPT_OK;
}

ckpt_code run_chat_parse(run_text_mode mode, const char *answer, int is_ended, byte_buffer *out,
                         ckpt_error *err)
{
    call_reader *r = calloc(1, sizeof *r);
    byte_buffer text = { 0 };
    ckpt_code code;

    put(&text, answer);
    byte_buffer_add(&text, CHAT_EOS, is_ended ? sizeof CHAT_EOS - 1 : 0);
    byte_buffer_add(&text, "", 1);
    if (r == NULL || text.failed) {
        code = ckpt_fail_memory(err, "an answer", text.used);
    } else {
        r->c.at = text.bytes;
        code = read_answer(r, mode == RUN_TEXT_THINK || mode == RUN_TEXT_THINK_MAX, out, err);
        free(r->arguments.bytes);
        free(r->calls.bytes);
    }
    free(text.bytes);
    free(r);
    return code;
}
