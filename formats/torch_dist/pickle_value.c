/* pickle_value.c: access to values, and the check for cycles and depth. */
#include <string.h>

#include "pickle_private.h"

pickle_node *pickle_node_of(const pickle_value *v)
{
    if (v == NULL)
        return NULL;
    switch (v->kind) {
    case PICKLE_TUPLE:
    case PICKLE_LIST:
    case PICKLE_SET:
    case PICKLE_DICT:
    case PICKLE_OBJECT:
    case PICKLE_PERSISTENT:
        return v->u.node;
    default:
        return NULL;
    }
}

/* An object's node is its first member. */
static const pickle_object *object_of(const pickle_value *v)
{
    return pickle_is(v, PICKLE_OBJECT) ? (const pickle_object *)(const void *)v->u.node : NULL;
}

int pickle_is(const pickle_value *v, pickle_kind kind)
{
    return v != NULL && v->kind == kind;
}

int pickle_bool(const pickle_value *v, int *out)
{
    if (!pickle_is(v, PICKLE_BOOL))
        return 0;
    *out = v->u.integer != 0;
    return 1;
}

int pickle_i64(const pickle_value *v, int64_t *out)
{
    if (!pickle_is(v, PICKLE_INT))
        return 0;
    *out = v->u.integer;
    return 1;
}

int pickle_u64(const pickle_value *v, uint64_t *out)
{
    if (!pickle_is(v, PICKLE_INT) || v->u.integer < 0)
        return 0;
    *out = (uint64_t)v->u.integer;
    return 1;
}

int pickle_double(const pickle_value *v, double *out)
{
    if (!pickle_is(v, PICKLE_DOUBLE))
        return 0;
    *out = v->u.number;
    return 1;
}

const char *pickle_text(const pickle_value *v, size_t *length)
{
    if (!pickle_is(v, PICKLE_TEXT))
        return NULL;
    *length = v->length;
    return v->u.bytes;
}

int pickle_text_is(const pickle_value *v, const char *text)
{
    return pickle_is(v, PICKLE_TEXT) && v->length == strlen(text) &&
           memcmp(v->u.bytes, text, v->length) == 0;
}

/* A persistent id does not count as a container. */
static const pickle_node *container_of(const pickle_value *v)
{
    return pickle_is(v, PICKLE_PERSISTENT) ? NULL : pickle_node_of(v);
}

size_t pickle_count(const pickle_value *v)
{
    const pickle_node *node = container_of(v);

    if (node == NULL)
        return 0;
    return node->has_keys ? node->count / 2 : node->count;
}

const pickle_value *pickle_item(const pickle_value *v, size_t i)
{
    const pickle_node *node = container_of(v);

    if (i >= pickle_count(v))
        return NULL;
    return node->has_keys ? &node->items[2 * i + 1] : &node->items[i];
}

const pickle_value *pickle_key(const pickle_value *v, size_t i)
{
    const pickle_node *node = container_of(v);

    return node == NULL || !node->has_keys || i >= node->count / 2 ? NULL : &node->items[2 * i];
}

const pickle_value *pickle_find(const pickle_value *v, const char *key)
{
    for (size_t i = pickle_count(v); i-- > 0;)
        if (pickle_text_is(pickle_key(v, i), key))
            return pickle_item(v, i);
    return NULL;
}

const char *pickle_class(const pickle_value *v)
{
    const pickle_object *object = object_of(v);

    if (object != NULL)
        return object->class_name;
    return pickle_is(v, PICKLE_GLOBAL) ? v->u.bytes : NULL;
}

int pickle_class_is(const pickle_value *v, const char *class_name)
{
    const char *is = pickle_class(v);

    return is != NULL && strcmp(is, class_name) == 0;
}

const pickle_value *pickle_args(const pickle_value *object)
{
    const pickle_object *o = object_of(object);

    return o == NULL ? NULL : &o->args;
}

const pickle_value *pickle_state(const pickle_value *object)
{
    const pickle_object *o = object_of(object);

    return o == NULL || o->state.kind == PICKLE_UNSET ? NULL : &o->state;
}

const pickle_value *pickle_persistent_id(const pickle_value *v)
{
    return pickle_is(v, PICKLE_PERSISTENT) ? &v->u.node->items[0] : NULL;
}

const pickle_value *pickle_attribute(const pickle_value *object, const char *name)
{
    const pickle_value *state = pickle_state(object);

    return pickle_is(state, PICKLE_DICT) ? pickle_find(state, name) : NULL;
}

/* Child `i` of a node: its items, then an object's arguments and state. */
static const pickle_value *child(const pickle_level *level, uint64_t i)
{
    if (i < level->node->count)
        return &level->node->items[i];
    if (level->object == NULL || i - level->node->count >= 2)
        return NULL;
    return i == level->node->count ? &level->object->args : &level->object->state;
}

static void enter(pickle_level *level, const pickle_value *v)
{
    *level = (pickle_level){ .node = v->u.node, .object = object_of(v) };
    level->node->visit = 1;
}

/* Depth first with an explicit stack. Finished nodes have a height, so shared ones are walked
 * once. */
const char *pickle_check(const pickle_value *root, pickle_level *levels, uint32_t depth_max)
{
    uint32_t depth = 1;

    if (pickle_node_of(root) == NULL)
        return NULL;
    enter(&levels[0], root);
    while (depth > 0) {
        pickle_level *level = &levels[depth - 1];
        const pickle_value *v = child(level, level->next++);
        const pickle_node *node = pickle_node_of(v);

        if (v == NULL) {
            level->node->visit = 2;
            level->node->height = (uint16_t)(level->height + 1);
            depth--;
            if (depth > 0 && levels[depth - 1].height < level->node->height)
                levels[depth - 1].height = level->node->height;
        } else if (node == NULL) {
            continue;
        } else if (node->visit == 1) {
            return "is cyclic";
        } else if (depth + (node->visit == 2 ? node->height : 1U) > depth_max) {
            return "is nested too deeply";
        } else if (node->visit == 2) {
            if (level->height < node->height)
                level->height = node->height;
        } else {
            enter(&levels[depth++], v);
        }
    }
    return NULL;
}
