/*
 * fuzz_pickle.c: whatever is accepted as a pickle can be walked to its end, by depth, and holds no
 * more memory than allowed.
 */
#include "formats/torch_dist/pickle.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition) do { if (!(condition)) abort(); } while (0)

enum { MEMORY = 4 << 20, DEPTH = 40, STEPS = 10000 };

static const pickle_value *key_or_item(const pickle_value *v, size_t i)
{
    const pickle_value *key = pickle_key(v, i);

    return key == NULL ? pickle_item(v, i) : key;
}

/* Values reachable from one, depth first, a bounded number of them. */
static void walk(const pickle_value *root)
{
    const pickle_value *values[DEPTH + 1] = { root };
    size_t next[DEPTH + 1] = { 0 };
    size_t depth = 1;

    for (int step = 0; step < STEPS && depth > 0; step++) {
        const pickle_value *v = values[depth - 1];
        const size_t i = next[depth - 1]++;
        const size_t count = pickle_count(v);
        const pickle_value *child = NULL;
        size_t length;

        if (pickle_text(v, &length) != NULL)
            (void)pickle_find(v, "x");
        if (i < count && step % 2)
            child = key_or_item(v, i);
        else if (i < count)
            child = pickle_item(v, i);
        else if (i == count)
            child = pickle_args(v);
        else if (i == count + 1)
            child = pickle_state(v);
        else if (i == count + 2)
            child = pickle_persistent_id(v);
        else
            depth--;
        CHECK(i >= count || child != NULL);
        if (child != NULL) {
            CHECK(depth <= DEPTH);
            next[depth] = 0;
            values[depth++] = child;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const pickle_limits limits = { .memory_bytes = MEMORY, .depth_max = DEPTH };
    ckpt_error err = { 0 };
    pickle *p;

    if (pickle_read(data, size, &limits, "fuzz", &p, &err) != CKPT_OK) {
        CHECK(p == NULL && err.text[0] != '\0');
        return 0;
    }
    CHECK(pickle_memory_bytes(p) <= MEMORY + 1024);
    walk(pickle_root(p));
    pickle_free(p);
    return 0;
}
