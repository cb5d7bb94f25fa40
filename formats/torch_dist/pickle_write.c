/* pickle_write.c: pickles of protocol 2. */
#include "pickle_write.h"

#include <string.h>

static void flush(pickle_writer *w)
{
    if (w->failed == CKPT_OK && w->used > 0 && w->write(w->context, w->buffer, w->used) != 0)
        w->failed = CKPT_E_IO;
    w->used = 0;
}

static void put_bytes(pickle_writer *w, const void *bytes, size_t size)
{
    const unsigned char *from = bytes;

    while (size > 0) {
        const size_t room = sizeof w->buffer - w->used;
        const size_t now = size < room ? size : room;

        memcpy(w->buffer + w->used, from, now);
        w->used += now;
        from += now;
        size -= now;
        if (w->used == sizeof w->buffer)
            flush(w);
    }
}

/* An opcode and `size` bytes of a little-endian number. */
static void put_number(pickle_writer *w, pickle_op op, uint64_t number, size_t size)
{
    unsigned char bytes[1 + sizeof number];

    bytes[0] = (unsigned char)op;
    for (size_t i = 0; i < size; i++)
        bytes[1 + i] = (unsigned char)(number >> 8 * i);
    put_bytes(w, bytes, 1 + size);
}

void pickle_writer_begin(pickle_writer *w, pickle_write_fn *write, void *context)
{
    w->write = write;
    w->context = context;
    table_init(&w->texts);
    table_init(&w->others);
    arena_init(&w->keys);
    w->memo_count = 0;
    w->failed = CKPT_OK;
    w->used = 0;
    put_number(w, PICKLE_OP_PROTO, 2, 1);
}

ckpt_code pickle_writer_end(pickle_writer *w, ckpt_error *err)
{
    pickle_put_op(w, PICKLE_OP_STOP);
    flush(w);
    table_release(&w->texts);
    table_release(&w->others);
    arena_release(&w->keys);
    if (w->failed == CKPT_E_MEMORY)
        return ckpt_fail_memory(err, "a pickle's memo", w->memo_count);
    if (w->failed == CKPT_E_USAGE)
        return ckpt_fail(err, CKPT_E_USAGE, "a pickle cannot hold a number or text so large");
    if (w->failed != CKPT_OK)
        return ckpt_fail(err, w->failed, "cannot write a pickle");
    return CKPT_OK;
}

void pickle_put_op(pickle_writer *w, pickle_op op)
{
    put_number(w, op, 0, 0);
}

void pickle_put_bool(pickle_writer *w, int flag)
{
    pickle_put_op(w, flag ? PICKLE_OP_NEWTRUE : PICKLE_OP_NEWFALSE);
}

/* The shortest form, as CPython chooses it. */
void pickle_put_i64(pickle_writer *w, int64_t number)
{
    unsigned char bytes[2 + sizeof number] = { PICKLE_OP_LONG1 };
    size_t size = sizeof number;

    if (number >= 0 && number <= UINT8_MAX) {
        put_number(w, PICKLE_OP_BININT1, (uint64_t)number, 1);
    } else if (number >= 0 && number <= UINT16_MAX) {
        put_number(w, PICKLE_OP_BININT2, (uint64_t)number, 2);
    } else if (number >= INT32_MIN && number <= INT32_MAX) {
        put_number(w, PICKLE_OP_BININT, (uint64_t)number, 4);
    } else {
        for (size_t i = 0; i < sizeof number; i++)
            bytes[2 + i] = (unsigned char)((uint64_t)number >> 8 * i);
        /* Omit a last byte that only repeats the sign of the byte before it. */
        while (bytes[size + 1] == (bytes[size] & 0x80 ? 0xff : 0))
            size--;
        bytes[1] = (unsigned char)size;
        put_bytes(w, bytes, 2 + size);
    }
}

void pickle_put_u64(pickle_writer *w, uint64_t number)
{
    if (number > INT64_MAX)
        w->failed = CKPT_E_USAGE;
    pickle_put_i64(w, (int64_t)number);
}

void pickle_put_double(pickle_writer *w, double number)
{
    unsigned char bytes[1 + sizeof number] = { PICKLE_OP_BINFLOAT };
    uint64_t bits;

    memcpy(&bits, &number, sizeof bits);
    for (size_t i = 0; i < sizeof bits; i++)
        bytes[sizeof bits - i] = (unsigned char)(bits >> 8 * i);
    put_bytes(w, bytes, sizeof bytes);
}

static void put_memo(pickle_writer *w, table *where, const char *key)
{
    if (table_add(where, key, w->memo_count) != TABLE_ADDED && w->failed == CKPT_OK)
        w->failed = CKPT_E_MEMORY;
    if (w->memo_count <= UINT8_MAX)
        put_number(w, PICKLE_OP_BINPUT, w->memo_count, 1);
    else
        put_number(w, PICKLE_OP_LONG_BINPUT, w->memo_count, 4);
    w->memo_count++;
}

static int put_reference(pickle_writer *w, const table *where, const char *key)
{
    uint64_t number;

    if (!table_find(where, key, &number))
        return 0;
    if (number <= UINT8_MAX)
        put_number(w, PICKLE_OP_BINGET, number, 1);
    else
        put_number(w, PICKLE_OP_LONG_BINGET, number, 4);
    return 1;
}

int pickle_put_shared(pickle_writer *w, const char *key)
{
    return put_reference(w, &w->others, key);
}

void pickle_put_share(pickle_writer *w, const char *key)
{
    const char *copy = arena_strdup(&w->keys, key, strlen(key));

    if (copy == NULL)
        w->failed = CKPT_E_MEMORY;
    else
        put_memo(w, &w->others, copy);
}

void pickle_put_text(pickle_writer *w, const char *text)
{
    const size_t length = strlen(text);

    if (put_reference(w, &w->texts, text))
        return;
    if (length > UINT32_MAX) {
        w->failed = CKPT_E_USAGE;
        return;
    }
    put_number(w, PICKLE_OP_BINUNICODE, length, 4);
    put_bytes(w, text, length);
    put_memo(w, &w->texts, text);
}

void pickle_put_sizes(pickle_writer *w, const uint64_t *sizes, size_t count)
{
    static const pickle_op short_tuples[] = { PICKLE_OP_EMPTY_TUPLE, PICKLE_OP_TUPLE1,
                                              PICKLE_OP_TUPLE2, PICKLE_OP_TUPLE3 };

    if (count > 3)
        pickle_put_op(w, PICKLE_OP_MARK);
    for (size_t i = 0; i < count; i++)
        pickle_put_u64(w, sizes[i]);
    pickle_put_op(w, count > 3 ? PICKLE_OP_TUPLE : short_tuples[count]);
}

void pickle_put_global(pickle_writer *w, const char *name)
{
    const char *blank = strchr(name, ' ');

    put_number(w, PICKLE_OP_GLOBAL, 0, 0);
    put_bytes(w, name, (size_t)(blank - name));
    put_bytes(w, "\n", 1);
    put_bytes(w, blank + 1, strlen(blank + 1));
    put_bytes(w, "\n", 1);
}

void pickle_put_class(pickle_writer *w, const char *name)
{
    if (pickle_put_shared(w, name))
        return;
    pickle_put_global(w, name);
    pickle_put_share(w, name);
}

void pickle_put_object(pickle_writer *w, const char *class_name)
{
    pickle_put_class(w, class_name);
    pickle_put_op(w, PICKLE_OP_EMPTY_TUPLE);
    pickle_put_op(w, PICKLE_OP_NEWOBJ);
    pickle_put_op(w, PICKLE_OP_EMPTY_DICT);
    pickle_put_op(w, PICKLE_OP_MARK);
}

void pickle_put_object_end(pickle_writer *w)
{
    pickle_put_op(w, PICKLE_OP_SETITEMS);
    pickle_put_op(w, PICKLE_OP_BUILD);
}
