/* Files that are filled with whole blocks of the model. */
#include <stdlib.h>
#include <string.h>

#include "convert_plan.h"
#include "libckpt/array.h"
#include "libckpt/size.h"

typedef struct {
    const char *name;              /* of its first tensor */
    size_t prefix;                 /* of the name: "layers.3." */
    uint64_t bytes;
    uint32_t file;
} model_block;

typedef struct {
    model_block *blocks;           /* in the order in which they begin */
    size_t count;
    uint32_t *block_of;            /* by tensor */
} block_list;

/* The length of the block's prefix, "layers.12."; the whole name if the tensor is in no block and
 * is therefore a block by itself. */
static size_t measure(const char *name)
{
    const char *dot = strchr(name, '.');
    const size_t digits = dot == NULL ? 0 : strspn(dot + 1, "0123456789");

    return digits > 0 && dot[1 + digits] == '.' ? (size_t)(dot - name) + digits + 2
                                                : strlen(name) + 1;
}

static int is_in(const model_block *block, const char *name, size_t prefix)
{
    return block->prefix == prefix && strncmp(block->name, name, prefix) == 0;
}

/* Add tensor i to its block, which is usually that of the previous tensor. */
static ckpt_code add_tensor(block_list *list, const ckpt_tensor *t, size_t i, ckpt_error *err)
{
    const size_t prefix = measure(t->name);
    size_t b = list->count;
    model_block *blocks;

    while (b > 0 && !is_in(&list->blocks[b - 1], t->name, prefix))
        b--;
    if (b == 0) {
        blocks = array_room(list->blocks, list->count, sizeof *blocks, "a plan", err);
        if (blocks == NULL)
            return CKPT_E_MEMORY;
        list->blocks = blocks;
        blocks[list->count++] = (model_block){ t->name, prefix, 0, 0 };
        b = list->count;
    }
    list->block_of[i] = (uint32_t)(b - 1);
    list->blocks[b - 1].bytes += ckpt_tensor_bytes(t);
    return CKPT_OK;
}

static uint32_t fill_files(block_list *list, uint64_t limit)
{
    uint64_t used_bytes = 0;
    uint32_t file = 0;

    for (size_t b = 0; b < list->count; b++) {
        model_block *block = &list->blocks[b];

        if (used_bytes > 0 && block->bytes > limit - size_min(limit, used_bytes)) {
            file++;
            used_bytes = 0;
        }
        used_bytes += block->bytes;
        block->file = file;
    }
    return file + 1;
}

ckpt_code convert_number_blocks(ckpt_catalog *targets, uint64_t limit, uint32_t *file_count,
                                ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(targets);
    block_list list = { .block_of = calloc(count + 1, sizeof *list.block_of) };
    ckpt_code code = CKPT_OK;

    if (list.block_of == NULL)
        return ckpt_fail_memory(err, "a plan", count);
    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        code = add_tensor(&list, ckpt_catalog_at(targets, i), i, err);
    if (code == CKPT_OK)
        *file_count = fill_files(&list, limit);
    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        catalog_edit(targets, i)->file = list.blocks[list.block_of[i]].file;
    free(list.blocks);
    free(list.block_of);
    return code;
}
