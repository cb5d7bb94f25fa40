/*
 * pickle.c: interprets pickles. One table has the supported opcodes and their functions; none of
 * them calls code of the pickle, imports or recurses. Every byte of memory is charged to one limit.
 */
#include "pickle.h"

#include <stdlib.h>
#include <string.h>

#include "pickle_op.h"
#include "pickle_private.h"
#include "libckpt/memory.h"
#include "libckpt/recognise.h"
#include "libckpt/size.h"

enum { NAME_MAX_BYTES = 512, PROTOCOL_MIN = 2, PROTOCOL_MAX = 5, VECTOR_MIN = 64 };

/* A growing array outside the arena. */
typedef struct {
    void *items;
    size_t count;
    size_t capacity;
} vector;

typedef struct {
    const unsigned char *bytes;
    size_t size;
    size_t at;                   /* position after the opcode, then after its argument */
    size_t op_at;
    const char *subject;
    uint64_t memory_limit;
    uint64_t vector_bytes;
    vector stack;                /* pickle_value */
    vector marks;                /* size_t: stack counts */
    vector memo;                 /* pickle_value; PICKLE_UNSET: empty entry */
    uint64_t memo_next;          /* MEMOIZE's number: entries that are set */
    pickle *result;
    int stopped;
    ckpt_error *err;
} machine;

typedef struct {
    const char *name;
    ckpt_code (*run)(machine *m);    /* NULL: unsupported */
} opcode;

static const opcode ops[256];

static ckpt_code fail(const machine *m, const char *what)
{
    const unsigned op = m->op_at < m->size ? m->bytes[m->op_at] : 0;

    return ckpt_fail(m->err, CKPT_E_FORMAT, "'%s': pickle opcode 0x%02x (%s) at byte %zu: %s",
                     m->subject, op, ops[op].name == NULL ? "unsupported" : ops[op].name,
                     m->op_at, what);
}

/* ---- memory ---- */

static ckpt_code fail_limit(const machine *m)
{
    return ckpt_fail(m->err, CKPT_E_MEMORY,
                     "'%s': the pickle needs more than %llu bytes of memory at byte %zu",
                     m->subject, (unsigned long long)m->memory_limit, m->op_at);
}

static uint64_t memory_held(const machine *m)
{
    return m->vector_bytes + m->result->memory.total_bytes;
}

static ckpt_code allocate(machine *m, uint64_t size, void **out)
{
    if (size > m->memory_limit)
        return fail_limit(m);
    *out = arena_alloc(&m->result->memory, (size_t)size);
    if (*out == NULL)
        return ckpt_fail_memory(m->err, m->subject, size);
    return memory_held(m) > m->memory_limit ? fail_limit(m) : CKPT_OK;
}

/* Room for `count` items in all, in doubling steps. */
static ckpt_code reserve(machine *m, vector *v, uint64_t count, size_t item_bytes)
{
    uint64_t capacity = size_max(v->capacity, VECTOR_MIN);
    void *grown;

    if (count <= v->capacity)
        return CKPT_OK;
    while (capacity < count)
        capacity *= 2;           /* count is below the input's size */
    if ((capacity - v->capacity) * item_bytes > m->memory_limit - size_min(memory_held(m),
                                                                           m->memory_limit))
        return fail_limit(m);
    if (!memory_take((capacity - v->capacity) * item_bytes))
        return ckpt_fail_memory(m->err, m->subject, capacity * item_bytes);
    grown = realloc(v->items, (size_t)capacity * item_bytes);
    if (grown == NULL) {
        memory_give((capacity - v->capacity) * item_bytes);
        return ckpt_fail_memory(m->err, m->subject, capacity * item_bytes);
    }
    m->vector_bytes += (capacity - v->capacity) * item_bytes;
    v->items = grown;
    v->capacity = (size_t)capacity;
    return CKPT_OK;
}

/* ---- the stack ---- */

/* Number of values above the last mark: an opcode may use only these. */
static size_t stack_free(const machine *m)
{
    const size_t *marks = m->marks.items;

    return m->stack.count - (m->marks.count > 0 ? marks[m->marks.count - 1] : 0);
}

static ckpt_code push(machine *m, pickle_value value)
{
    ckpt_code code = reserve(m, &m->stack, (uint64_t)m->stack.count + 1, sizeof value);

    if (code == CKPT_OK)
        ((pickle_value *)m->stack.items)[m->stack.count++] = value;
    return code;
}

/* The value `depth` below the top (0: the top). The caller has checked stack_free. */
static pickle_value *peek(const machine *m, size_t depth)
{
    return (pickle_value *)m->stack.items + m->stack.count - 1 - depth;
}

static ckpt_code need(const machine *m, size_t count)
{
    return stack_free(m) < count ? fail(m, "the stack is too short") : CKPT_OK;
}

/* Remove the last mark. *first, *count: the values above it, which stay on the stack. */
static ckpt_code pop_mark(machine *m, const pickle_value **first, size_t *count)
{
    *count = stack_free(m);
    *first = (const pickle_value *)m->stack.items + m->stack.count - *count;
    if (m->marks.count == 0)
        return fail(m, "there is no mark on the stack");
    m->marks.count--;
    return CKPT_OK;
}

/* ---- the input ---- */

static size_t input_left(const machine *m)
{
    return m->size - m->at;
}

/* `size` bytes of argument. */
static ckpt_code take(machine *m, uint64_t size, const unsigned char **out)
{
    *out = m->bytes + m->at;
    if (size > input_left(m))
        return fail(m, "its argument extends past the end");
    m->at += (size_t)size;
    return CKPT_OK;
}

static ckpt_code take_number(machine *m, size_t size, uint64_t *out)
{
    const unsigned char *bytes;
    ckpt_code code = take(m, size, &bytes);

    if (code != CKPT_OK)
        return code;
    *out = 0;
    for (size_t i = size; i-- > 0;)
        *out = *out << 8 | bytes[i];
    return CKPT_OK;
}

static unsigned op_of(const machine *m)
{
    return m->bytes[m->op_at];
}

/* ---- plain values ---- */

static ckpt_code run_proto(machine *m)
{
    uint64_t version;
    ckpt_code code = take_number(m, 1, &version);

    if (code != CKPT_OK)
        return code;
    if (m->op_at != 0)
        return fail(m, "it is only allowed at the start");
    if (version < PROTOCOL_MIN || version > PROTOCOL_MAX)
        return fail(m, "expected protocol 2 to 5");
    return CKPT_OK;
}

static ckpt_code run_frame(machine *m)
{
    uint64_t length;
    ckpt_code code = take_number(m, 8, &length);

    if (code == CKPT_OK && length > input_left(m))
        code = fail(m, "the frame extends past the end");
    return code;
}

static ckpt_code run_none(machine *m)
{
    return push(m, (pickle_value){ .kind = PICKLE_NULL });
}

static ckpt_code run_bool(machine *m)
{
    return push(m, (pickle_value){ .kind = PICKLE_BOOL,
                                   .u.integer = op_of(m) == PICKLE_OP_NEWTRUE });
}

static ckpt_code run_int(machine *m)
{
    const unsigned op = op_of(m);
    const size_t size = op == PICKLE_OP_BININT1 ? 1 : op == PICKLE_OP_BININT2 ? 2 : 4;
    pickle_value v = { .kind = PICKLE_INT };
    uint64_t number;
    ckpt_code code = take_number(m, size, &number);

    if (code != CKPT_OK)
        return code;
    v.u.integer = size == 4 ? (int32_t)(uint32_t)number : (int64_t)number;
    return push(m, v);
}

/* Two's complement of n bytes; bytes past the eighth must only repeat the sign. */
static ckpt_code run_long1(machine *m)
{
    pickle_value v = { .kind = PICKLE_INT };
    const unsigned char *bytes;
    uint64_t size;
    uint64_t number;
    ckpt_code code;

    if ((code = take_number(m, 1, &size)) != CKPT_OK ||
        (code = take(m, size, &bytes)) != CKPT_OK)
        return code;
    number = size > 0 && bytes[size - 1] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = (size_t)size_min(size, sizeof number); i-- > 0;)
        number = number << 8 | bytes[i];
    v.u.integer = (int64_t)number;
    for (size_t i = sizeof number; i < size; i++)
        if (bytes[i] != (v.u.integer < 0 ? 0xff : 0))
            v.kind = PICKLE_BIG;
    return push(m, v);
}

static ckpt_code run_double(machine *m)
{
    pickle_value v = { .kind = PICKLE_DOUBLE };
    const unsigned char *bytes;
    uint64_t bits = 0;
    ckpt_code code = take(m, sizeof bits, &bytes);

    if (code != CKPT_OK)
        return code;
    for (size_t i = 0; i < sizeof bits; i++)
        bits = bits << 8 | bytes[i];
    memcpy(&v.u.number, &bits, sizeof bits);
    return push(m, v);
}

/* Bytes of a UTF-8 sequence with this first byte; 0: not a first byte. */
static size_t utf8_length(unsigned char first)
{
    if (first < 0x80)
        return 1;
    if (first >= 0xc2 && first < 0xe0)
        return 2;
    if (first >= 0xe0 && first < 0xf0)
        return 3;
    return first >= 0xf0 && first < 0xf5 ? 4 : 0;
}

/* As in Python: other than json_utf8_bytes it accepts lone surrogates. */
static int is_utf8(const unsigned char *bytes, size_t size)
{
    for (size_t i = 0; i < size;) {
        const size_t length = utf8_length(bytes[i]);

        if (length == 0 || length > size - i)
            return 0;
        for (size_t k = 1; k < length; k++)
            if ((bytes[i + k] & 0xc0) != 0x80)
                return 0;
        if ((bytes[i] == 0xe0 && bytes[i + 1] < 0xa0) ||
            (bytes[i] == 0xf0 && bytes[i + 1] < 0x90) ||
            (bytes[i] == 0xf4 && bytes[i + 1] > 0x8f))
            return 0;
        i += length;
    }
    return 1;
}

static ckpt_code push_span(machine *m, pickle_kind kind, size_t length_bytes)
{
    pickle_value v = { .kind = (uint8_t)kind };
    const unsigned char *bytes;
    uint64_t length;
    ckpt_code code;

    if ((code = take_number(m, length_bytes, &length)) != CKPT_OK ||
        (code = take(m, length, &bytes)) != CKPT_OK)
        return code;
    if (length > UINT32_MAX)
        return fail(m, "it is longer than 4 GiB");
    if (kind == PICKLE_TEXT && !is_utf8(bytes, (size_t)length))
        return fail(m, "the text is not UTF-8");
    v.length = (uint32_t)length;
    v.u.bytes = (const char *)bytes;
    return push(m, v);
}

static ckpt_code run_text(machine *m)
{
    const unsigned op = op_of(m);

    return push_span(m, PICKLE_TEXT,
                     op == PICKLE_OP_BINUNICODE ? 4 : op == PICKLE_OP_BINUNICODE8 ? 8 : 1);
}

static ckpt_code run_bytes(machine *m)
{
    return push_span(m, PICKLE_BYTES, op_of(m) == PICKLE_OP_BINBYTES ? 4 : 1);
}

/* ---- the memo ---- */

static ckpt_code put(machine *m, uint64_t number)
{
    pickle_value *memo;
    ckpt_code code = need(m, 1);

    if (code != CKPT_OK)
        return code;
    if (number >= m->size)
        return fail(m, "the memo number is larger than the pickle");
    if (number >= m->memo.count) {
        if ((code = reserve(m, &m->memo, number + 1, sizeof *memo)) != CKPT_OK)
            return code;
        memo = m->memo.items;
        while (m->memo.count <= number)
            memo[m->memo.count++] = (pickle_value){ .kind = PICKLE_UNSET };
    }
    memo = m->memo.items;
    m->memo_next += memo[number].kind == PICKLE_UNSET;
    memo[number] = *peek(m, 0);
    return CKPT_OK;
}

/* MEMOIZE has no argument: it uses the number of set entries. */
static ckpt_code run_put(machine *m)
{
    const unsigned op = op_of(m);
    uint64_t number = m->memo_next;
    ckpt_code code = CKPT_OK;

    if (op != PICKLE_OP_MEMOIZE)
        code = take_number(m, op == PICKLE_OP_BINPUT ? 1 : 4, &number);
    return code != CKPT_OK ? code : put(m, number);
}

static ckpt_code run_get(machine *m)
{
    const pickle_value *memo = m->memo.items;
    uint64_t number;
    ckpt_code code = take_number(m, op_of(m) == PICKLE_OP_BINGET ? 1 : 4, &number);

    if (code != CKPT_OK)
        return code;
    if (number >= m->memo.count || memo[number].kind == PICKLE_UNSET)
        return fail(m, "undefined memo number");
    return push(m, memo[number]);
}

/* ---- containers ---- */

static ckpt_code new_node(machine *m, pickle_kind kind, pickle_value *out)
{
    const size_t size = kind == PICKLE_OBJECT ? sizeof(pickle_object) : sizeof(pickle_node);
    void *memory = NULL;
    ckpt_code code = allocate(m, size, &memory);

    if (code != CKPT_OK)
        return code;
    memset(memory, 0, size);
    *out = (pickle_value){ .kind = (uint8_t)kind, .u.node = memory };
    out->u.node->has_keys = kind == PICKLE_DICT;
    return CKPT_OK;
}

/* Append copies of `count` values, which may not be those of the node itself. */
static ckpt_code add_items(machine *m, pickle_node *node, const pickle_value *items,
                           size_t count)
{
    const uint64_t total = (uint64_t)node->count + count;
    uint64_t capacity = size_max(total, node->capacity == 0 ? 0 : 2 * (uint64_t)node->capacity);
    void *memory = NULL;
    ckpt_code code;

    if (count == 0)
        return CKPT_OK;
    if (total > UINT32_MAX)
        return fail_limit(m);
    if (total > node->capacity) {
        capacity = size_min(capacity, UINT32_MAX);
        if ((code = allocate(m, capacity * sizeof *items, &memory)) != CKPT_OK)
            return code;
        if (node->count > 0)
            memcpy(memory, node->items, node->count * sizeof *items);
        node->items = memory;
        node->capacity = (uint32_t)capacity;
    }
    memcpy(node->items + node->count, items, count * sizeof *items);
    node->count = (uint32_t)total;
    return CKPT_OK;
}

static ckpt_code run_empty(machine *m)
{
    const unsigned op = op_of(m);
    pickle_value v;
    ckpt_code code = new_node(m, op == PICKLE_OP_EMPTY_TUPLE  ? PICKLE_TUPLE
                                 : op == PICKLE_OP_EMPTY_LIST ? PICKLE_LIST
                                 : op == PICKLE_OP_EMPTY_SET  ? PICKLE_SET
                                                              : PICKLE_DICT, &v);

    return code != CKPT_OK ? code : push(m, v);
}

static ckpt_code run_mark(machine *m)
{
    ckpt_code code = reserve(m, &m->marks, (uint64_t)m->marks.count + 1, sizeof(size_t));

    if (code == CKPT_OK)
        ((size_t *)m->marks.items)[m->marks.count++] = m->stack.count;
    return code;
}

static ckpt_code run_tuple(machine *m)
{
    const unsigned op = op_of(m);
    size_t count = op - PICKLE_OP_TUPLE1 + 1U;
    const pickle_value *items;
    pickle_value v;
    ckpt_code code;

    if (op == PICKLE_OP_TUPLE) {
        if ((code = pop_mark(m, &items, &count)) != CKPT_OK)
            return code;
    } else {
        if ((code = need(m, count)) != CKPT_OK)
            return code;
        items = peek(m, count - 1);
    }
    if ((code = new_node(m, PICKLE_TUPLE, &v)) != CKPT_OK ||
        (code = add_items(m, v.u.node, items, count)) != CKPT_OK)
        return code;
    m->stack.count -= count;
    return push(m, v);
}

/* A valid pickle has no dict keys that Python cannot hash. */
static int is_hashable(const pickle_value *v)
{
    return v->kind != PICKLE_LIST && v->kind != PICKLE_DICT && v->kind != PICKLE_SET;
}

/* Add the `count` values on top of the stack to the container or object below them. */
static ckpt_code collect(machine *m, size_t count, int with_keys)
{
    const pickle_value *items;
    pickle_node *node;
    pickle_value *to;
    ckpt_code code = need(m, count + 1);

    if (code != CKPT_OK)
        return code;
    to = peek(m, count);
    node = to->u.node;
    items = to + 1;
    if (to->kind != PICKLE_OBJECT && to->kind != (with_keys ? PICKLE_DICT
                                                  : op_of(m) == PICKLE_OP_ADDITEMS ? PICKLE_SET
                                                                                   : PICKLE_LIST))
        return fail(m, "the value below its items is not a container");
    if (with_keys && count % 2 != 0)
        return fail(m, "a key has no value");
    if (node->count > 0 && node->has_keys != with_keys)
        return fail(m, "an object has items with and without keys");
    for (size_t i = 0; with_keys && i < count; i += 2)
        if (!is_hashable(&items[i]))
            return fail(m, "a key is a list, dict or set");
    node->has_keys = (uint8_t)with_keys;
    if ((code = add_items(m, node, items, count)) == CKPT_OK)
        m->stack.count -= count;
    return code;
}

static ckpt_code run_add(machine *m)
{
    return op_of(m) == PICKLE_OP_SETITEM ? collect(m, 2, 1) : collect(m, 1, 0);
}

static ckpt_code run_add_many(machine *m)
{
    const pickle_value *items;
    size_t count;
    ckpt_code code = pop_mark(m, &items, &count);

    return code != CKPT_OK ? code : collect(m, count, op_of(m) == PICKLE_OP_SETITEMS);
}

/* ---- names and objects ---- */

static int is_name(const char *text, size_t length)
{
    if (length == 0 || length > NAME_MAX_BYTES)
        return 0;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] <= ' ' || text[i] == 0x7f)
            return 0;
    return is_utf8((const unsigned char *)text, length);
}

typedef struct {
    const char *text;
    size_t length;
} span;

/* "module name", kept as one text. */
static ckpt_code push_global(machine *m, span module, span name)
{
    pickle_value v = { .kind = PICKLE_GLOBAL };
    void *memory = NULL;
    char *text;
    ckpt_code code;

    if (!is_name(module.text, module.length) || !is_name(name.text, name.length))
        return fail(m, "expected module and name");
    if ((code = allocate(m, module.length + name.length + 2, &memory)) != CKPT_OK)
        return code;
    text = memory;
    memcpy(text, module.text, module.length);
    text[module.length] = ' ';
    memcpy(text + module.length + 1, name.text, name.length);
    text[module.length + 1 + name.length] = '\0';
    v.u.bytes = text;
    return push(m, v);
}

static ckpt_code take_line(machine *m, span *out)
{
    const size_t most = (size_t)size_min(input_left(m), NAME_MAX_BYTES + 1);
    const unsigned char *start = m->bytes + m->at;
    const unsigned char *end = memchr(start, '\n', most);

    if (end == NULL)
        return fail(m, "a name has no end");
    *out = (span){ (const char *)start, (size_t)(end - start) };
    m->at += out->length + 1;
    return CKPT_OK;
}

static ckpt_code run_global(machine *m)
{
    span module;
    span name;
    ckpt_code code;

    if ((code = take_line(m, &module)) != CKPT_OK || (code = take_line(m, &name)) != CKPT_OK)
        return code;
    return push_global(m, module, name);
}

static ckpt_code run_stack_global(machine *m)
{
    span module = { NULL, 0 };
    span name = { NULL, 0 };
    ckpt_code code = need(m, 2);

    if (code != CKPT_OK)
        return code;
    module.text = pickle_text(peek(m, 1), &module.length);
    name.text = pickle_text(peek(m, 0), &name.length);
    m->stack.count -= 2;
    return push_global(m, module, name);
}

/* REDUCE and NEWOBJ: create an object with the callable's name and its arguments, without calling
 * it. The callable may itself be such an object. */
static ckpt_code run_object(machine *m)
{
    const size_t count = op_of(m) == PICKLE_OP_NEWOBJ_EX ? 3 : 2;
    pickle_object *object;
    const pickle_value *called;
    pickle_value v;
    ckpt_code code = need(m, count);

    if (code != CKPT_OK)
        return code;
    called = peek(m, count - 1);
    if (called->kind != PICKLE_GLOBAL && called->kind != PICKLE_OBJECT)
        return fail(m, "expected a class");
    if (!pickle_is(&called[1], PICKLE_TUPLE) || (count == 3 && !pickle_is(&called[2], PICKLE_DICT)))
        return fail(m, "the arguments are not a tuple");
    if ((code = new_node(m, PICKLE_OBJECT, &v)) != CKPT_OK)
        return code;
    object = (pickle_object *)(void *)v.u.node;
    object->class_name = called->kind == PICKLE_GLOBAL ? called->u.bytes : "(computed)";
    object->args = called[1];
    object->state.kind = PICKLE_UNSET;
    m->stack.count -= count;
    return push(m, v);
}

static ckpt_code run_build(machine *m)
{
    pickle_object *object;
    ckpt_code code = need(m, 2);

    if (code != CKPT_OK)
        return code;
    if (peek(m, 1)->kind != PICKLE_OBJECT)
        return fail(m, "no object to set the state of");
    object = (pickle_object *)(void *)peek(m, 1)->u.node;
    if (object->state.kind != PICKLE_UNSET)
        return fail(m, "the state of the object is set twice");
    object->state = *peek(m, 0);
    m->stack.count--;
    return CKPT_OK;
}

static ckpt_code run_persistent(machine *m)
{
    pickle_value v;
    ckpt_code code = need(m, 1);

    if (code != CKPT_OK || (code = new_node(m, PICKLE_PERSISTENT, &v)) != CKPT_OK ||
        (code = add_items(m, v.u.node, peek(m, 0), 1)) != CKPT_OK)
        return code;
    *peek(m, 0) = v;
    return CKPT_OK;
}

static ckpt_code run_stop(machine *m)
{
    if (m->stack.count != 1 || m->marks.count != 0)
        return fail(m, "the pickle does not end with one value");
    if (m->at != m->size)
        return fail(m, "trailing bytes after the end");
    m->result->root = *peek(m, 0);
    m->stopped = 1;
    return CKPT_OK;
}

static const opcode ops[256] = {
    [PICKLE_OP_MARK] = { "MARK", run_mark },
    [PICKLE_OP_EMPTY_TUPLE] = { "EMPTY_TUPLE", run_empty },
    [PICKLE_OP_STOP] = { "STOP", run_stop },
    [PICKLE_OP_BINBYTES] = { "BINBYTES", run_bytes },
    [PICKLE_OP_SHORT_BINBYTES] = { "SHORT_BINBYTES", run_bytes },
    [PICKLE_OP_BINFLOAT] = { "BINFLOAT", run_double },
    [PICKLE_OP_BININT] = { "BININT", run_int },
    [PICKLE_OP_BININT1] = { "BININT1", run_int },
    [PICKLE_OP_BININT2] = { "BININT2", run_int },
    [PICKLE_OP_NONE] = { "NONE", run_none },
    [PICKLE_OP_BINPERSID] = { "BINPERSID", run_persistent },
    [PICKLE_OP_REDUCE] = { "REDUCE", run_object },
    [PICKLE_OP_SHORT_BINSTRING] = { "SHORT_BINSTRING", run_text },
    [PICKLE_OP_BINUNICODE] = { "BINUNICODE", run_text },
    [PICKLE_OP_EMPTY_LIST] = { "EMPTY_LIST", run_empty },
    [PICKLE_OP_APPEND] = { "APPEND", run_add },
    [PICKLE_OP_BUILD] = { "BUILD", run_build },
    [PICKLE_OP_GLOBAL] = { "GLOBAL", run_global },
    [PICKLE_OP_APPENDS] = { "APPENDS", run_add_many },
    [PICKLE_OP_BINGET] = { "BINGET", run_get },
    [PICKLE_OP_LONG_BINGET] = { "LONG_BINGET", run_get },
    [PICKLE_OP_BINPUT] = { "BINPUT", run_put },
    [PICKLE_OP_LONG_BINPUT] = { "LONG_BINPUT", run_put },
    [PICKLE_OP_SETITEM] = { "SETITEM", run_add },
    [PICKLE_OP_TUPLE] = { "TUPLE", run_tuple },
    [PICKLE_OP_SETITEMS] = { "SETITEMS", run_add_many },
    [PICKLE_OP_EMPTY_DICT] = { "EMPTY_DICT", run_empty },
    [PICKLE_OP_PROTO] = { "PROTO", run_proto },
    [PICKLE_OP_NEWOBJ] = { "NEWOBJ", run_object },
    [PICKLE_OP_TUPLE1] = { "TUPLE1", run_tuple },
    [PICKLE_OP_TUPLE2] = { "TUPLE2", run_tuple },
    [PICKLE_OP_TUPLE3] = { "TUPLE3", run_tuple },
    [PICKLE_OP_NEWTRUE] = { "NEWTRUE", run_bool },
    [PICKLE_OP_NEWFALSE] = { "NEWFALSE", run_bool },
    [PICKLE_OP_LONG1] = { "LONG1", run_long1 },
    [PICKLE_OP_SHORT_BINUNICODE] = { "SHORT_BINUNICODE", run_text },
    [PICKLE_OP_BINUNICODE8] = { "BINUNICODE8", run_text },
    [PICKLE_OP_EMPTY_SET] = { "EMPTY_SET", run_empty },
    [PICKLE_OP_ADDITEMS] = { "ADDITEMS", run_add_many },
    [PICKLE_OP_NEWOBJ_EX] = { "NEWOBJ_EX", run_object },
    [PICKLE_OP_STACK_GLOBAL] = { "STACK_GLOBAL", run_stack_global },
    [PICKLE_OP_MEMOIZE] = { "MEMOIZE", run_put },
    [PICKLE_OP_FRAME] = { "FRAME", run_frame },
};

static ckpt_code run(machine *m)
{
    if (m->size == 0 || m->bytes[0] != PICKLE_OP_PROTO)
        return recognise_refused(
            ckpt_fail(m->err, CKPT_E_FORMAT,
                      "'%s' is not a pickle of protocol 2 or later", m->subject),
            m->bytes, m->size, m->subject, m->err);
    while (!m->stopped) {
        ckpt_code code;

        m->op_at = m->at;
        if (m->at == m->size)
            return ckpt_fail(m->err, CKPT_E_FORMAT, "'%s': the pickle has no end after %zu bytes",
                             m->subject, m->size);
        m->at++;
        if (ops[op_of(m)].run == NULL)
            return fail(m, "refused");
        if ((code = ops[op_of(m)].run(m)) != CKPT_OK)
            return code;
    }
    return CKPT_OK;
}

static ckpt_code check(machine *m, uint32_t depth_max)
{
    pickle_level *levels = calloc((size_t)depth_max + 1, sizeof *levels);
    const char *wrong;

    if (levels == NULL)
        return ckpt_fail_memory(m->err, "a pickle", depth_max);
    wrong = pickle_check(&m->result->root, levels, depth_max);
    free(levels);
    if (wrong == NULL)
        return CKPT_OK;
    return ckpt_fail(m->err, CKPT_E_FORMAT, "'%s': the value of the pickle %s (limit: %u levels)",
                     m->subject, wrong, depth_max);
}

ckpt_code pickle_read(const void *bytes, size_t size, const pickle_limits *limits,
                      const char *subject, pickle **out, ckpt_error *err)
{
    const pickle_limits none = { 0, 0 };
    machine m = { .bytes = bytes, .size = size, .subject = subject, .err = err };
    ckpt_code code;

    *out = NULL;
    if (limits == NULL)
        limits = &none;
    m.memory_limit = limits->memory_bytes == 0 ? (uint64_t)PICKLE_MEMORY : limits->memory_bytes;
    m.result = calloc(1, sizeof *m.result);
    if (m.result == NULL)
        return ckpt_fail_memory(err, "a pickle", sizeof *m.result);
    arena_init(&m.result->memory);
    if ((code = reserve(&m, &m.stack, 1, sizeof(pickle_value))) == CKPT_OK)
        code = run(&m);
    memory_give(m.vector_bytes);
    free(m.stack.items);
    free(m.marks.items);
    free(m.memo.items);
    if (code == CKPT_OK)
        code = check(&m, limits->depth_max == 0 ? (uint32_t)PICKLE_DEPTH
                                                : (uint32_t)size_min(limits->depth_max, 10000));
    if (code != CKPT_OK) {
        pickle_free(m.result);
        return code;
    }
    *out = m.result;
    return CKPT_OK;
}

void pickle_free(pickle *p)
{
    if (p == NULL)
        return;
    arena_release(&p->memory);
    free(p);
}

const pickle_value *pickle_root(const pickle *p)
{
    return &p->root;
}

uint64_t pickle_memory_bytes(const pickle *p)
{
    return sizeof *p + p->memory.total_bytes;
}
