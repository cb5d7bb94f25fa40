/*
 * pickle_write.h: writes pickles of protocol 2 with only the opcodes that torch's weights_only
 * loader accepts. Output is streamed; pickle_writer_end reports the first error.
 *
 * A value that occurs twice can be shared: pickle_put_shared refers to an earlier one with this
 * key, if there is one. If not, write the value and call pickle_put_share with the same key.
 */
#ifndef CKPT_PICKLE_WRITE_H
#define CKPT_PICKLE_WRITE_H

#include "libckpt/arena.h"
#include "libckpt/error.h"
#include "pickle_op.h"
#include "libckpt/table.h"

typedef int pickle_write_fn(void *context, const void *bytes, size_t size);   /* 0: written */

typedef struct {
    pickle_write_fn *write;
    void *context;
    table texts;              /* text -> memo number */
    table others;             /* classes and shared values */
    arena keys;
    uint32_t memo_count;
    ckpt_code failed;
    size_t used;
    unsigned char buffer[2048];
} pickle_writer;

void pickle_writer_begin(pickle_writer *w, pickle_write_fn *write, void *context);
/* End the pickle and free the writer. Returns the first error. */
ckpt_code pickle_writer_end(pickle_writer *w, ckpt_error *err);

void pickle_put_op(pickle_writer *w, pickle_op op);        /* an opcode without an argument */
void pickle_put_bool(pickle_writer *w, int flag);
void pickle_put_i64(pickle_writer *w, int64_t number);
void pickle_put_u64(pickle_writer *w, uint64_t number);    /* at most INT64_MAX */
void pickle_put_double(pickle_writer *w, double number);
/* UTF-8; repeated texts become references. Borrowed until pickle_writer_end. */
void pickle_put_text(pickle_writer *w, const char *text);
/* A tuple of sizes, each at most INT64_MAX. */
void pickle_put_sizes(pickle_writer *w, const uint64_t *sizes, size_t count);
/* `name` is "module name"; put_class shares it. */
void pickle_put_global(pickle_writer *w, const char *name);
void pickle_put_class(pickle_writer *w, const char *name);

int pickle_put_shared(pickle_writer *w, const char *key);
void pickle_put_share(pickle_writer *w, const char *key);

/* Begin an object of this class: class, (), NEWOBJ, {, MARK. Then write its attributes as texts and
 * values, and call pickle_put_object_end: SETITEMS, BUILD. */
void pickle_put_object(pickle_writer *w, const char *class_name);
void pickle_put_object_end(pickle_writer *w);

#endif
