/*
 * fuzz_dcp.c: metadata that is accepted and proven can be written and read back, the same.
 */
#include "formats/torch_dist/dcp_metadata.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition) do { if (!(condition)) abort(); } while (0)

enum { MEMORY = 16 << 20 };

static const dcp_options options = { .subject = "fuzz", .memory_bytes = MEMORY };

typedef struct {
    uint8_t *bytes;
    size_t size;
} buffer;

static int write_bytes(void *context, const void *bytes, size_t size)
{
    buffer *b = context;

    b->bytes = realloc(b->bytes, b->size + size);
    CHECK(b->bytes != NULL);
    memcpy(b->bytes + b->size, bytes, size);
    b->size += size;
    return 0;
}

static void check_same(const dcp_metadata *a, const dcp_metadata *b)
{
    CHECK(a->entry_count == b->entry_count && a->chunk_count == b->chunk_count);
    CHECK(b->unused_count == 0);
    for (size_t i = 0; i < a->entry_count; i++) {
        CHECK(strcmp(a->entries[i].key, b->entries[i].key) == 0);
        CHECK(a->entries[i].dtype == b->entries[i].dtype);
        CHECK(memcmp(a->entries[i].size, b->entries[i].size, sizeof a->entries[i].size) == 0);
    }
    for (size_t i = 0; i < a->chunk_count; i++) {
        CHECK(memcmp(a->chunks[i].offsets, b->chunks[i].offsets, sizeof a->chunks[i].offsets) ==
              0);
        CHECK(strcmp(a->files[a->chunks[i].file], b->files[b->chunks[i].file]) == 0);
        CHECK(a->chunks[i].offset == b->chunks[i].offset);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    buffer written = { NULL, 0 };
    dcp_metadata *m;
    dcp_metadata *again;
    ckpt_error err = { 0 };

    if (dcp_parse(data, size, &options, &m, &err) != CKPT_OK) {
        CHECK(m == NULL && err.text[0] != '\0');
        return 0;
    }
    for (size_t i = 0; i < m->entry_count; i++)
        (void)dcp_check_cover(m, i, &err);
    if (dcp_write(m, write_bytes, &written, &err) == CKPT_OK) {
        CHECK(dcp_parse(written.bytes, written.size, &options, &again, &err) == CKPT_OK);
        check_same(m, again);
        dcp_free(again);
    }
    free(written.bytes);
    dcp_free(m);
    return 0;
}
