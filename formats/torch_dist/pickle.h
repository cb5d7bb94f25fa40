/*
 * pickle.h: Python pickles as plain data, protocols 2 to 5. Nothing is ever called or imported.
 *
 * Reading is a small machine with the opcodes that CPython writes for checkpoints (the list is in
 * pickle.c); any other opcode is refused. It builds values:
 *
 *   REDUCE, NEWOBJ     an object that remembers its class name and arguments
 *   BUILD              the object's state
 *   SETITEMS, APPENDS  also on objects (OrderedDict): the object's own items
 *   BINPERSID          a persistent id around a value
 *   GLOBAL             a name, "module name", of a class, a function or a dtype alike
 *
 * Values may be shared (the memo). Cycles are refused, and nesting deeper than the limit. Time is
 * linear in the input. Errors name the subject, the byte and the opcode.
 */
#ifndef CKPT_PICKLE_H
#define CKPT_PICKLE_H

#include "libckpt/error.h"

typedef enum {
    PICKLE_NULL = 0,     /* Python's None */
    PICKLE_BOOL,
    PICKLE_INT,          /* fits 64 bits, signed */
    PICKLE_BIG,          /* an integer that does not */
    PICKLE_DOUBLE,
    PICKLE_TEXT,         /* UTF-8, checked; may hold NUL */
    PICKLE_BYTES,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_SET,
    PICKLE_DICT,
    PICKLE_GLOBAL,
    PICKLE_OBJECT,
    PICKLE_PERSISTENT
} pickle_kind;

typedef struct {
    uint64_t memory_bytes;   /* for all values, the stack and the memo; 0: PICKLE_MEMORY */
    uint32_t depth_max;      /* of nested values; 0: PICKLE_DEPTH */
} pickle_limits;

enum { PICKLE_MEMORY = 512 << 20, PICKLE_DEPTH = 100 };

typedef struct pickle pickle;
typedef struct pickle_value pickle_value;

/*
 * Read one pickle that fills `bytes` up to its STOP; bytes after it are refused. `bytes` is
 * borrowed until pickle_free. limits may be NULL. More memory than allowed: CKPT_E_MEMORY.
 */
ckpt_code pickle_read(const void *bytes, size_t size, const pickle_limits *limits,
                      const char *subject, pickle **out, ckpt_error *err);
void pickle_free(pickle *p);                             /* NULL is fine */
const pickle_value *pickle_root(const pickle *p);
uint64_t pickle_memory_bytes(const pickle *p);           /* held now */

/* All of these accept NULL for an absent value, which has no kind and no items. */
int pickle_is(const pickle_value *v, pickle_kind kind);
/* 1 and *out when the value is of that kind (no conversions, but a bool is no int). */
int pickle_bool(const pickle_value *v, int *out);
int pickle_i64(const pickle_value *v, int64_t *out);
int pickle_u64(const pickle_value *v, uint64_t *out);    /* a non-negative PICKLE_INT */
int pickle_double(const pickle_value *v, double *out);
/* Text or NULL; not NUL-terminated. */
const char *pickle_text(const pickle_value *v, size_t *length);
int pickle_text_is(const pickle_value *v, const char *text);

/* Items of a tuple, list or set; of a dict the keys and values; of an object the items that it was
 * given by APPENDS, or by SETITEMS, as a dict. NULL when out of range. */
size_t pickle_count(const pickle_value *v);
const pickle_value *pickle_item(const pickle_value *v, size_t i);    /* of a dict: the value */
const pickle_value *pickle_key(const pickle_value *v, size_t i);     /* NULL where there are none */
/* Value of the last entry with this text as key, as in Python; linear. NULL if absent. */
const pickle_value *pickle_find(const pickle_value *v, const char *key);

/* "module name" of a global, or of an object's class; NULL for other kinds. NUL-terminated. */
const char *pickle_class(const pickle_value *v);
int pickle_class_is(const pickle_value *v, const char *class_name);
const pickle_value *pickle_args(const pickle_value *object);         /* a tuple, or NULL */
const pickle_value *pickle_state(const pickle_value *object);        /* or NULL */
const pickle_value *pickle_persistent_id(const pickle_value *v);     /* or NULL */

/* Attribute of an object: an entry of its state, when that is a dict. NULL when absent. */
const pickle_value *pickle_attribute(const pickle_value *object, const char *name);

#endif
