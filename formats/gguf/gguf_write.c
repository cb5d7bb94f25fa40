/* Lays out GGUF files: heads with keys and tensors, and where the data goes. */
#include "gguf_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/file_order.h"
#include "gguf_head.h"
#include "gguf_model.h"
#include "gguf_tokens.h"
#include "libckpt/size.h"

void gguf_file_name(size_t i, size_t count, char out[FORMAT_NAME_BYTES])
{
    if (count == 1)
        snprintf(out, FORMAT_NAME_BYTES, "model.gguf");
    else
        snprintf(out, FORMAT_NAME_BYTES, "model-%05zu-of-%05zu.gguf", i + 1, count);
}

ckpt_stored_form gguf_form(const ckpt_tensor *logical)
{
    return stored_form_fits(CKPT_FORM_MXFP4, logical) ? CKPT_FORM_MXFP4
           : stored_form_fits(CKPT_FORM_Q8_0, logical)  ? CKPT_FORM_Q8_0
           : stored_form_fits(CKPT_FORM_NVFP4, logical) ? CKPT_FORM_NVFP4
                                                        : CKPT_FORM_APART;
}

/* ---- the order of tensors ---- */

/* Sort key: 1 + 12 for "blk.12."; 0 for tensors in no block, which come first. */
static uint64_t block_of(const char *name)
{
    unsigned long long block;

    return sscanf(name, "blk.%llu.", &block) == 1 ? 1 + (uint64_t)block : 0;
}

/* By block, then name. */
static int compare_tensors(const ckpt_tensor *a, const ckpt_tensor *b)
{
    const uint64_t blocks[] = { block_of(a->name), block_of(b->name) };

    if (blocks[0] != blocks[1])
        return blocks[0] < blocks[1] ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* ---- one file ---- */

typedef struct {
    ckpt_tensor **tensors;         /* of the file, in order */
    size_t count;
} file_tensors;

/* Refuse block-scaled weights that are not in interleaved blocks: GGUF has no others. */
static ckpt_code check_targets(const ckpt_catalog *targets, ckpt_error *err)
{
    for (size_t i = 0; i < ckpt_catalog_count(targets); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(targets, i);
        char encoding[64];

        ckpt_tensor_encoding(t, encoding, sizeof encoding);
        if (t->scale_dtype != CKPT_NONE && t->stored_form == CKPT_FORM_APART)
            return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is %s, which GGUF cannot hold: "
                             "--experts bf16 decodes experts; by --quantize they become fp4, nvfp4 "
                             "or q8_0", t->name, encoding);
    }
    return CKPT_OK;
}

/* ne begins with the number of columns. A scalar is written with one dimension. */
static ckpt_code put_info(byte_buffer *bytes, const ckpt_tensor *t, uint64_t offset,
                          ckpt_error *err)
{
    const gguf_type *type = gguf_type_of(t);

    if (type == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is %s, which GGUF cannot hold", t->name,
                         ckpt_dtype_name(t->dtype));
    if (strlen(t->name) >= GGUF_NAME_BYTES)
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' has a name of %zu bytes, readers of GGUF "
                         "accept %d", t->name, strlen(t->name), GGUF_NAME_BYTES - 1);
    if (t->rank > GGUF_RANK_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' has %u dimensions, GGUF has at most %d",
                         t->name, t->rank, GGUF_RANK_MAX);
    gguf_put_text(bytes, t->name);
    gguf_put_number(bytes, t->rank == 0 ? 1 : t->rank, sizeof(uint32_t));
    if (t->rank == 0)
        gguf_put_number(bytes, 1, sizeof(uint64_t));
    for (uint32_t d = t->rank; d > 0; d--)
        gguf_put_number(bytes, t->shape[d - 1], sizeof(uint64_t));
    gguf_put_number(bytes, type->id, sizeof(uint32_t));
    gguf_put_number(bytes, offset, sizeof offset);
    return CKPT_OK;
}

static uint64_t align(uint64_t offset)
{
    return size_div_up(offset, GGUF_ALIGNMENT) * GGUF_ALIGNMENT;
}

/* Make the head of a file from its keys and tensors, and set the tensors' offsets in the file. */
static ckpt_code lay_out_file(store_file *f, const gguf_put *keys, const file_tensors *in,
                              ckpt_error *err)
{
    static const char padding[GGUF_ALIGNMENT];
    byte_buffer head = { .bytes = NULL };
    uint64_t end = 0;
    ckpt_code code = CKPT_OK;

    byte_buffer_add(&head, "GGUF", 4);
    gguf_put_number(&head, 3, sizeof(uint32_t));
    gguf_put_number(&head, in->count, sizeof(uint64_t));
    gguf_put_number(&head, keys->count, sizeof(uint64_t));
    byte_buffer_add(&head, keys->bytes.bytes, keys->bytes.used);
    for (size_t i = 0; i < in->count && code == CKPT_OK; i++) {
        in->tensors[i]->offset = end;
        code = put_info(&head, in->tensors[i], end, err);
        if (code == CKPT_OK &&
            (!size_add(end, ckpt_tensor_bytes(in->tensors[i]), &end) || end > INT64_MAX / 2))
            code = ckpt_fail(err, CKPT_E_USAGE, "file '%s' would be too large", f->name);
        end = align(end);
    }
    byte_buffer_add(&head, padding, align(head.used) - head.used);
    if (code == CKPT_OK && (head.failed || keys->bytes.failed))
        code = ckpt_fail_memory(err, f->name, head.used);
    if (code != CKPT_OK) {
        free(head.bytes);
        return code;
    }
    f->header = head.bytes;
    f->header_bytes = head.used;
    f->size_bytes = head.used + end;
    for (size_t i = 0; i < in->count; i++)
        in->tensors[i]->offset += f->header_bytes;
    return CKPT_OK;
}

/* ---- keys ---- */

/* Behind magic, version and counts: the key's name, its type, the length of its string. */
enum { ROOT_AT = 24 + 8 + sizeof CHECKPOINT_ROOT_KEY - 1 + 4 + 8 };

/* Reserve 64 digits for the root, which is not known yet. */
static void put_root(gguf_put *p)
{
    char none[CKPT_ROOT_HEX];

    memset(none, '0', sizeof none - 1);
    none[sizeof none - 1] = '\0';
    gguf_put_string(p, CHECKPOINT_ROOT_KEY, none);
}

/* The keys of file i: those of the model are in the first. */
static ckpt_code put_keys(gguf_put *p, size_t i, const ckpt_store *store,
                          const format_target *target, ckpt_error *err)
{
    gguf_keys *keys = NULL;
    ckpt_code code = CKPT_OK;

    if (i == 0) {
        if ((code = gguf_keys_of_family(target->map->family, &keys, err)) != CKPT_OK)
            return code;
        if (keys == NULL || target->config == NULL)
            return ckpt_fail(err, CKPT_E_USAGE, "layout gguf is not supported for a %s checkpoint: "
                             "nobody has said which keys its readers want", target->map->family);
        if (target->will_have_root)
            put_root(p);
        code = gguf_model_put(p, keys, target, err);
        if (code == CKPT_OK && !target->without_tokenizer)
            code = gguf_tokens_put(p, target, err);
        free(keys);
    }
    if (store->file_count > 1) {
        gguf_put_u16(p, "split.no", (uint16_t)i);
        gguf_put_u16(p, "split.count", (uint16_t)store->file_count);
        gguf_put_i32(p, "split.tensors.count", (int32_t)ckpt_catalog_count(store->catalog));
    }
    return code;
}

static ckpt_code lay_out_one(ckpt_store *store, size_t file, ckpt_tensor **tensors, size_t count,
                             const void *context, ckpt_error *err)
{
    const format_target *target = context;
    gguf_put keys = { .count = 0 };
    ckpt_code code;

    store->files[file].root_at = file == 0 && target->will_have_root ? ROOT_AT : 0;
    if ((code = put_keys(&keys, file, store, context, err)) == CKPT_OK)
        code = lay_out_file(&store->files[file], &keys, &(file_tensors){ tensors, count }, err);
    free(keys.bytes.bytes);
    return code;
}

ckpt_code gguf_lay_out(ckpt_store *store, const format_target *target, ckpt_error *err)
{
    const file_order order = { compare_tensors, lay_out_one, target };
    ckpt_code code;

    if ((code = check_targets(target->targets, err)) != CKPT_OK)
        return code;
    if (store->file_count > UINT16_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "%zu files are too many: use a larger "
                         "--max-shard-size", store->file_count);
    return file_order_lay_out(store, &order, err);
}

ckpt_code gguf_finish(ckpt_store *store, const format_target *target, ckpt_error *err)
{
    return target->root == NULL ? CKPT_OK
                                : file_write_at(store->files[0].file, ROOT_AT, target->root,
                                                CKPT_ROOT_HEX - 1, err);
}
