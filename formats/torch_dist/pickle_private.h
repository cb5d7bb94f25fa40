/* pickle_private.h: representation of values: 16 bytes, and a node for values with items. */
#ifndef CKPT_PICKLE_PRIVATE_H
#define CKPT_PICKLE_PRIVATE_H

#include "libckpt/arena.h"
#include "pickle.h"

typedef struct pickle_node pickle_node;

struct pickle_value {
    uint8_t kind;                /* pickle_kind, or PICKLE_UNSET */
    uint32_t length;             /* bytes of text and bytes */
    union {
        int64_t integer;         /* also of a bool */
        double number;
        const char *bytes;       /* text, bytes: in the input; globals: NUL-terminated */
        pickle_node *node;
    } u;
};

enum { PICKLE_UNSET = 0xff };    /* a memo entry without a value */

/* Containers, objects and persistent ids (whose one item is the id). */
struct pickle_node {
    pickle_value *items;         /* key, value, key, value ... where has_keys */
    uint32_t count;              /* of items, keys among them */
    uint32_t capacity;
    uint8_t has_keys;
    uint8_t visit;               /* pickle_check: 0 new, 1 open, 2 done */
    uint16_t height;             /* once done: levels of nodes below and here */
};

typedef struct {
    pickle_node node;
    const char *class_name;
    pickle_value args;           /* a tuple */
    pickle_value state;          /* PICKLE_UNSET without BUILD */
} pickle_object;

struct pickle {
    arena memory;
    pickle_value root;
};

/* The node of a value that has one, else NULL. */
pickle_node *pickle_node_of(const pickle_value *v);

/* Check a value with everything in it: "is cyclic", "is nested too deeply", or NULL if it is valid.
 * `levels` has depth_max + 1 entries. */
typedef struct {
    pickle_node *node;
    const pickle_object *object;     /* the same, when it is one */
    uint64_t next;                   /* child to look at */
    uint32_t height;                 /* of the children so far */
} pickle_level;
const char *pickle_check(const pickle_value *root, pickle_level *levels, uint32_t depth_max);

#endif
