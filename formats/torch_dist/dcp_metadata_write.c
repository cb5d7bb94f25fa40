/*
 * dcp_metadata_write.c: writes `.metadata` for all versions of torch and Megatron,
 * deterministically. planner_data is {} because None breaks torch's own converters, and
 * storage_meta is an object because None breaks the converters of miles and slime; optional members
 * are omitted.
 */
#include "dcp_metadata.h"

#include <stdio.h>

#include "dcp_names.h"
#include "pickle_write.h"
#include "zip_item.h"

enum { SIZE_KEY_BYTES = 8 + CKPT_RANK_MAX * 21 };

static void put_size(pickle_writer *w, const uint64_t *sizes, uint32_t rank)
{
    char key[SIZE_KEY_BYTES] = "size";
    size_t used = 4;

    for (uint32_t d = 0; d < rank; d++)
        used += (size_t)snprintf(key + used, sizeof key - used, " %llu",
                                 (unsigned long long)sizes[d]);
    if (pickle_put_shared(w, key))
        return;
    pickle_put_class(w, DCP_SIZE);
    pickle_put_sizes(w, sizes, rank);
    pickle_put_op(w, PICKLE_OP_TUPLE1);
    pickle_put_op(w, PICKLE_OP_REDUCE);
    pickle_put_share(w, key);
}

/* Dtype, layout, requires_grad, memory format (0: contiguous), pin_memory. */
static void put_properties(pickle_writer *w, ckpt_dtype dtype)
{
    const char *name = zip_item_dtype_name(dtype);
    char class_name[64];
    char key[64];

    snprintf(key, sizeof key, "properties %s", name);
    if (pickle_put_shared(w, key))
        return;
    snprintf(class_name, sizeof class_name, "torch %s", name);
    pickle_put_class(w, DCP_MODULE " TensorProperties");
    pickle_put_op(w, PICKLE_OP_EMPTY_TUPLE);
    pickle_put_op(w, PICKLE_OP_NEWOBJ);
    pickle_put_op(w, PICKLE_OP_MARK);
    pickle_put_class(w, class_name);
    pickle_put_class(w, "torch.serialization _get_layout");
    pickle_put_text(w, "torch.strided");
    pickle_put_op(w, PICKLE_OP_TUPLE1);
    pickle_put_op(w, PICKLE_OP_REDUCE);
    pickle_put_bool(w, 0);
    pickle_put_class(w, DCP_MODULE " _MEM_FORMAT_ENCODING");
    pickle_put_i64(w, 0);
    pickle_put_op(w, PICKLE_OP_TUPLE1);
    pickle_put_op(w, PICKLE_OP_REDUCE);
    pickle_put_bool(w, 0);
    pickle_put_op(w, PICKLE_OP_TUPLE);
    pickle_put_op(w, PICKLE_OP_BUILD);
    pickle_put_share(w, key);
}

static void put_tensor(pickle_writer *w, const dcp_metadata *m, const dcp_entry *e)
{
    pickle_put_object(w, DCP_TENSOR);
    pickle_put_text(w, "properties");
    put_properties(w, e->dtype);
    pickle_put_text(w, "size");
    put_size(w, e->size, e->rank);
    pickle_put_text(w, "chunks");
    pickle_put_op(w, PICKLE_OP_EMPTY_LIST);
    pickle_put_op(w, PICKLE_OP_MARK);
    for (size_t i = e->first_chunk; i < e->first_chunk + e->chunk_count; i++) {
        pickle_put_object(w, DCP_CHUNK);
        pickle_put_text(w, "offsets");
        put_size(w, m->chunks[i].offsets, e->rank);
        pickle_put_text(w, "sizes");
        put_size(w, m->chunks[i].sizes, e->rank);
        pickle_put_object_end(w);
    }
    pickle_put_op(w, PICKLE_OP_APPENDS);
    pickle_put_object_end(w);
}

static void put_entry(pickle_writer *w, const dcp_metadata *m, const dcp_entry *e)
{
    pickle_put_text(w, e->key);
    if (!e->is_bytes) {
        put_tensor(w, m, e);
        return;
    }
    pickle_put_class(w, DCP_BYTES);
    pickle_put_op(w, PICKLE_OP_EMPTY_TUPLE);
    pickle_put_op(w, PICKLE_OP_NEWOBJ);
}

/* The storage entry of one chunk: its MetadataIndex, then file, offset and length. */
static void put_storage(pickle_writer *w, const dcp_metadata *m, const dcp_entry *e,
                        const dcp_chunk *c)
{
    pickle_put_object(w, DCP_INDEX);
    pickle_put_text(w, "fqn");
    pickle_put_text(w, e->key);
    pickle_put_text(w, "index");
    pickle_put_op(w, PICKLE_OP_NONE);
    if (!e->is_bytes) {
        pickle_put_text(w, "offset");
        put_size(w, c->offsets, e->rank);
    }
    pickle_put_object_end(w);
    pickle_put_object(w, DCP_STORAGE);
    pickle_put_text(w, "relative_path");
    pickle_put_text(w, m->files[c->file]);
    pickle_put_text(w, "offset");
    pickle_put_u64(w, c->offset);
    pickle_put_text(w, "length");
    pickle_put_u64(w, c->length);
    pickle_put_object_end(w);
}

/*
 * torch writes a path and a random id here, which nothing reads. We write a fixed text, so that the
 * bytes are deterministic. `modules` must be written because it has no default in the class.
 */
static void put_storage_meta(pickle_writer *w)
{
    pickle_put_object(w, DCP_STORAGE_META);
    pickle_put_text(w, "checkpoint_id");
    pickle_put_text(w, "ckpt");
    pickle_put_text(w, "save_id");
    pickle_put_text(w, "ckpt");
    pickle_put_text(w, "load_id");
    pickle_put_op(w, PICKLE_OP_NONE);
    pickle_put_text(w, "modules");
    pickle_put_op(w, PICKLE_OP_EMPTY_LIST);
    pickle_put_object_end(w);
}

static void put_metadata(pickle_writer *w, const dcp_metadata *m)
{
    pickle_put_object(w, DCP_METADATA);
    pickle_put_text(w, "state_dict_metadata");
    pickle_put_op(w, PICKLE_OP_EMPTY_DICT);
    pickle_put_op(w, PICKLE_OP_MARK);
    for (size_t i = 0; i < m->entry_count; i++)
        put_entry(w, m, &m->entries[i]);
    pickle_put_op(w, PICKLE_OP_SETITEMS);
    pickle_put_text(w, "planner_data");
    pickle_put_op(w, PICKLE_OP_EMPTY_DICT);
    pickle_put_text(w, "storage_data");
    pickle_put_op(w, PICKLE_OP_EMPTY_DICT);
    pickle_put_op(w, PICKLE_OP_MARK);
    for (size_t i = 0; i < m->entry_count; i++) {
        const dcp_entry *e = &m->entries[i];

        for (size_t c = e->first_chunk; c < e->first_chunk + e->chunk_count; c++)
            put_storage(w, m, e, &m->chunks[c]);
    }
    pickle_put_op(w, PICKLE_OP_SETITEMS);
    pickle_put_text(w, "storage_meta");
    put_storage_meta(w);
    pickle_put_object_end(w);
}

ckpt_code dcp_write(const dcp_metadata *m, dcp_write_fn *write, void *context, ckpt_error *err)
{
    pickle_writer w;

    for (size_t i = 0; i < m->entry_count; i++) {
        const dcp_entry *e = &m->entries[i];

        if (!e->is_bytes && zip_item_dtype_name(e->dtype) == NULL)
            return ckpt_fail(err, CKPT_E_USAGE, "'%s': torch has no dtype for %s", e->key,
                             ckpt_dtype_name(e->dtype));
    }
    pickle_writer_begin(&w, write, context);
    put_metadata(&w, m);
    return pickle_writer_end(&w, err);
}
