/*
 * tokenizer_merge.c: byte-pair merges of one word.
 *
 * The pair with the lowest rank merges first; of equal ones, the leftmost. Symbols are in a linked
 * list and candidate pairs in a heap, so n bytes take n log n steps. That matters because a "word"
 * can be a long text without blanks.
 */
#include <stdlib.h>

#include "libckpt/memory.h"
#include "tokenizer_private.h"

enum { GONE = UINT32_MAX };        /* as an id: merged into the previous symbol; as a link: none */

static int order_pair(const void *key, const void *element)
{
    const uint64_t pair = *(const uint64_t *)key;
    const text_merge *m = element;

    return (pair > m->pair) - (pair < m->pair);
}

static const text_merge *find_merge(const run_text *t, const text_symbol *symbols, uint32_t at)
{
    uint64_t pair;

    if (at == GONE || symbols[at].id == GONE || symbols[at].next == GONE)
        return NULL;
    pair = (uint64_t)symbols[at].id << 32 | symbols[symbols[at].next].id;
    return bsearch(&pair, t->merges, t->merge_count, sizeof *t->merges, order_pair);
}

/* ---- heap: the next pair to merge is on top ---- */

static int goes_first(text_candidate a, text_candidate b)
{
    return a.merge->rank != b.merge->rank ? a.merge->rank < b.merge->rank : a.at < b.at;
}

static void push(text_merger *m, text_candidate c)
{
    size_t i = m->heap_count++;

    while (i > 0 && goes_first(c, m->heap[(i - 1) / 2])) {
        m->heap[i] = m->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    m->heap[i] = c;
}

static text_candidate pop(text_merger *m)
{
    const text_candidate top = m->heap[0];
    const text_candidate last = m->heap[--m->heap_count];
    size_t i = 0;

    for (size_t child; (child = 2 * i + 1) < m->heap_count; i = child) {
        if (child + 1 < m->heap_count && goes_first(m->heap[child + 1], m->heap[child]))
            child++;
        if (!goes_first(m->heap[child], last))
            break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = last;
    return top;
}

/* ---- a word ---- */

static void push_pair(const run_text *t, text_merger *m, uint32_t at)
{
    const text_merge *merge = find_merge(t, m->symbols, at);

    if (merge != NULL)
        push(m, (text_candidate){ merge, at });
}

/* Make room for a word of n bytes. The heap gets n - 1 pairs at first; each of at most n - 1 merges
 * removes one and adds two, so 2 n entries are enough. */
static ckpt_code make_room(text_merger *m, size_t size, ckpt_error *err)
{
    const uint64_t bytes = size * (uint64_t)(sizeof *m->symbols + 2 * sizeof *m->heap);

    if (size <= m->capacity)
        return CKPT_OK;
    if (size >= GONE || !memory_has(bytes))
        return ckpt_fail_memory(err, "a piece of text", bytes);
    text_merger_release(m);
    m->symbols = malloc(size * sizeof *m->symbols);
    m->heap = malloc(2 * size * sizeof *m->heap);
    if (m->symbols == NULL || m->heap == NULL)
        return ckpt_fail_memory(err, "a piece of text", bytes);
    m->capacity = size;
    return CKPT_OK;
}

/* Merge the symbol at `at` with the next one, which is removed. */
static void merge_at(text_symbol *symbols, uint32_t at, uint32_t id)
{
    const uint32_t next = symbols[at].next;

    symbols[at].id = id;
    symbols[at].next = symbols[next].next;
    if (symbols[next].next != GONE)
        symbols[symbols[next].next].previous = at;
    symbols[next].id = GONE;
}

ckpt_code text_merge_piece(const run_text *t, text_merger *m, const char *bytes, size_t size,
                           ckpt_error *err)
{
    const ckpt_code code = make_room(m, size, err);

    if (code != CKPT_OK)
        return code;
    for (uint32_t i = 0; i < size; i++)
        m->symbols[i] = (text_symbol){ t->byte_ids[(unsigned char)bytes[i]],
                                       i == 0 ? GONE : i - 1, i + 1 == size ? GONE : i + 1 };
    m->heap_count = 0;
    for (uint32_t i = 0; i + 1 < size; i++)
        push_pair(t, m, i);
    while (m->heap_count > 0) {
        const text_candidate c = pop(m);

        /* Skip a pair that no longer exists, because one of its symbols was merged meanwhile. */
        if (find_merge(t, m->symbols, c.at) != c.merge)
            continue;
        merge_at(m->symbols, c.at, c.merge->id);
        push_pair(t, m, m->symbols[c.at].previous);
        push_pair(t, m, c.at);
    }
    return CKPT_OK;
}

uint32_t text_merger_next(const text_merger *m, uint32_t at)
{
    return m->symbols[at].next == GONE ? 0 : m->symbols[at].next;
}

void text_merger_release(text_merger *m)
{
    free(m->symbols);
    free(m->heap);
    *m = (text_merger){ .symbols = NULL };
}
