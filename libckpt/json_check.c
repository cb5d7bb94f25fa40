/* json_check.c: checks beyond single tokens: duplicate keys, and numbers out of range. */
#include "json_scan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "kernels/kernels.h"
#include "memory.h"
#include "recognise.h"

/* Objects with fewer members than this are searched linearly; larger ones get a hash table. */
enum { KEYS_INLINE = 12, KEYS_SLOTS_MIN = 64 };

/*
 * The set of keys of an object being read, as 128-bit hashes: 16 bytes for a key of any length. A
 * duplicate is never missed, because equal keys have equal hashes. A collision would refuse a valid
 * text; the seed is random, so that nobody can construct one.
 */
typedef struct {
    hash128 few[KEYS_INLINE];
    hash128 *slots;          /* open addressing, all zeros: free; NULL: all are in `few` */
    size_t slot_count;       /* a power of two, at most two thirds full */
    size_t count;
} key_set;

typedef struct {
    json_scanner scan;
    uint64_t seed;
    key_set levels[JSON_DEPTH_MAX + 1];      /* by depth of the object's members */
} json_checker;

static int same_hash(hash128 a, hash128 b)
{
    return a.low64 == b.low64 && a.high64 == b.high64;
}

static int is_free(hash128 slot)
{
    return slot.low64 == 0 && slot.high64 == 0;
}

static void key_set_clear(key_set *set)
{
    memory_give(set->slot_count * sizeof *set->slots);
    free(set->slots);
    set->slots = NULL;
    set->slot_count = 0;
    set->count = 0;
}

/* The slot of `key`, or the free slot for it. */
static hash128 *probe(hash128 *slots, size_t slot_count, hash128 key)
{
    size_t i = (size_t)key.low64 & (slot_count - 1);

    while (!is_free(slots[i]) && !same_hash(slots[i], key))
        i = (i + 1) & (slot_count - 1);
    return &slots[i];
}

static int key_set_grow(key_set *set)
{
    const hash128 *old = set->slots == NULL ? set->few : set->slots;
    const size_t old_count = set->slots == NULL ? set->count : set->slot_count;
    const size_t slot_count = set->slots == NULL ? KEYS_SLOTS_MIN : set->slot_count * 2;
    hash128 *slots;

    if (!memory_take(slot_count * sizeof *slots))
        return 0;
    if ((slots = calloc(slot_count, sizeof *slots)) == NULL) {
        memory_give(slot_count * sizeof *slots);
        return 0;
    }
    for (size_t i = 0; i < old_count; i++)
        if (!is_free(old[i]))
            *probe(slots, slot_count, old[i]) = old[i];
    memory_give(set->slot_count * sizeof *slots);
    free(set->slots);
    set->slots = slots;
    set->slot_count = slot_count;
    return 1;
}

/* Add a key. 1: it is new; 0: it is a duplicate; -1: no memory. */
static int key_set_add(key_set *set, hash128 key)
{
    hash128 *slot;

    if (is_free(key))
        key.low64 = 1;
    if (set->slots == NULL && set->count < KEYS_INLINE) {
        for (size_t i = 0; i < set->count; i++)
            if (same_hash(set->few[i], key))
                return 0;
        set->few[set->count++] = key;
        return 1;
    }
    if ((set->slots == NULL || set->count >= set->slot_count / 3 * 2) && !key_set_grow(set))
        return -1;
    slot = probe(set->slots, set->slot_count, key);
    if (!is_free(*slot))
        return 0;
    *slot = key;
    set->count++;
    return 1;
}

/* Hash the key with its escapes decoded; 0 when there is no memory. */
static int hash_key(const json_checker *c, const json_token *token, hash128 *out)
{
    const char *text = c->scan.text + token->start + 1;
    const size_t size = token->end - token->start - 2;
    char *plain;

    if (memchr(text, '\\', size) == NULL) {
        *out = kernels_get()->hash_bytes(text, size, c->seed);
        return 1;
    }
    if (!memory_has(size) || (plain = malloc(size + 1)) == NULL)
        return 0;
    *out = kernels_get()->hash_bytes(plain, json_token_decode(c->scan.text, token, plain),
                                     c->seed);
    free(plain);
    return 1;
}

static ckpt_code fail_twice(const json_checker *c, const json_token *token, ckpt_error *err)
{
    char *key = malloc(token->end - token->start);
    ckpt_code code;

    if (key == NULL)
        return json_scan_fail(&c->scan, token->start, "a key that occurs twice", err);
    json_token_decode(c->scan.text, token, key);
    code = ckpt_fail(err, CKPT_E_FORMAT,
                     "'%s' is not valid JSON: key '%s' occurs twice, again at byte %zu",
                     c->scan.subject, key, token->start);
    free(key);
    return code;
}

static ckpt_code check_key(json_checker *c, const json_token *token, ckpt_error *err)
{
    key_set *set = &c->levels[token->depth];
    hash128 hash;
    int added = -1;

    if (hash_key(c, token, &hash))
        added = key_set_add(set, hash);
    if (added < 0)
        return ckpt_fail_memory(err, c->scan.subject, set->slot_count * sizeof *set->slots);
    return added == 0 ? fail_twice(c, token, err) : CKPT_OK;
}

static ckpt_code check_token(json_checker *c, const json_token *token, json_census *census,
                             ckpt_error *err)
{
    switch (token->kind) {
    case JSON_SCAN_KEY:
        census->string_bytes += token->end - token->start - 1;
        return check_key(c, token, err);
    case JSON_SCAN_OBJECT_END:
        key_set_clear(&c->levels[token->depth + 1]);
        return CKPT_OK;
    case JSON_SCAN_ARRAY_END:
    case JSON_SCAN_END:
        return CKPT_OK;
    case JSON_SCAN_STRING:
        census->string_bytes += token->end - token->start - 1;
        break;
    case JSON_SCAN_NUMBER:
        if (isinf(json_token_number(c->scan.text, token)))
            return json_scan_fail(&c->scan, token->start, "number too large for a double", err);
        break;
    default:
        break;
    }
    census->value_count++;
    return CKPT_OK;
}

ckpt_code json_check(const char *text, size_t size, const char *subject, json_census *out,
                     ckpt_error *err)
{
    json_checker *c = calloc(1, sizeof *c);
    json_token token;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if (c == NULL)
        return ckpt_fail_memory(err, subject, sizeof *c);
    if (getrandom(&c->seed, sizeof c->seed, GRND_NONBLOCK) != (ssize_t)sizeof c->seed)
        c->seed = (uint64_t)(uintptr_t)c;      /* no randomness early in a boot: use an address */
    json_scan_begin(&c->scan, text, size, subject);
    do {
        if ((code = json_scan_next(&c->scan, &token, err)) == CKPT_OK)
            code = check_token(c, &token, out, err);
    } while (code == CKPT_OK && token.kind != JSON_SCAN_END);
    for (size_t i = 0; i <= JSON_DEPTH_MAX; i++)
        key_set_clear(&c->levels[i]);
    free(c);
    return recognise_refused(code, text, size, subject, err);
}
