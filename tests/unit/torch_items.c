/*
 * torch_items.c: the torch.save and DCP functions as a command, for the tests against torch.
 *
 *   write DTYPE DIMS PAYLOAD OUT     an item; DIMS "2,3" or "-"; CRC from pieces, last one first
 *   none OUT | empty OUT             the byte entries
 *   read FILE [OFFSET LENGTH]        an item
 *   dcp FILE                         .metadata, each entry checked to be covered
 *   dcp-copy FILE OUT                .metadata read and written again
 *   common FILE [OFFSET LENGTH]      common.pt
 *   common-write OUT                 a fixed one
 */
#include "torch_items.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/torch_dist/common_pt.h"
#include "libckpt/crc32.h"
#include "formats/torch_dist/dcp_metadata.h"
#include "libckpt/json.h"
#include "formats/torch_dist/zip_item.h"

typedef struct {
    FILE *file;
} output;

static int write_out(void *context, const void *bytes, size_t size)
{
    return fwrite(bytes, 1, size, ((output *)context)->file) != size;
}

static int failed(const ckpt_error *err)
{
    fprintf(stderr, "%s\n", err->text);
    return 2;
}

static void put_sizes(json_writer *w, const char *key, const uint64_t *sizes, uint32_t count)
{
    json_put_key(w, key);
    json_put_array(w);
    for (uint32_t i = 0; i < count; i++)
        json_put_u64(w, sizes[i]);
    json_put_array_end(w);
}

static void put_u64(json_writer *w, const char *key, uint64_t number)
{
    json_put_key(w, key);
    json_put_u64(w, number);
}

static void put_text(json_writer *w, const char *key, const char *text)
{
    json_put_key(w, key);
    json_put_string(w, text);
}

static int write_plan(zip_item_plan *plan, const void *payload, const char *path)
{
    output out = { fopen(path, "wb") };
    int bad = out.file == NULL;

    if (bad)
        return 2;
    bad |= write_out(&out, plan->head, plan->head_bytes);
    bad |= plan->payload_bytes > 0 && write_out(&out, payload, plan->payload_bytes);
    bad |= write_out(&out, plan->tail, plan->tail_bytes);
    bad |= fclose(out.file) != 0;
    return bad ? 2 : 0;
}

static int run_write(char **argv)
{
    zip_item_tensor t = { .dtype = zip_item_dtype_find(argv[0]) };
    zip_item_plan plan;
    ckpt_error err;
    char *payload;
    size_t size;
    uint32_t crc = 0;
    int status;

    for (char *at = argv[1]; *at != '\0' && *at != '-'; at += *at == ',')
        t.shape[t.rank++] = strtoull(at, &at, 10);
    if (zip_item_plan_tensor(&t, &plan, &err) != CKPT_OK ||
        file_read_all(argv[2], UINT32_MAX, &payload, &size, &err) != CKPT_OK)
        return failed(&err);
    if (size != plan.payload_bytes) {
        fprintf(stderr, "payload of %zu bytes, expected %" PRIu64 "\n", size, plan.payload_bytes);
        return 2;
    }
    for (size_t end = size; end > 0;) {
        const size_t begin = end > 7 ? end - 7 : 0;

        crc ^= crc32_shift(crc32_add(0, payload + begin, end - begin), size - end);
        end = begin;
    }
    zip_item_set_crc(&plan, crc);
    status = write_plan(&plan, payload, argv[3]);
    free(payload);
    return status;
}

static int run_bytes(int empty, const char *path)
{
    zip_item_plan plan;
    ckpt_error err;

    if ((empty ? zip_item_plan_empty : zip_item_plan_none)(&plan, &err) != CKPT_OK)
        return failed(&err);
    return write_plan(&plan, NULL, path);
}

/* FILE [OFFSET LENGTH] */
static ckpt_code open_range(char **argv, int argc, ckpt_file **file, uint64_t range[2],
                            ckpt_error *err)
{
    const ckpt_code code = file_open(argv[0], file, err);

    if (code != CKPT_OK)
        return code;
    range[0] = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    range[1] = argc > 2 ? strtoull(argv[2], NULL, 10) : file_size(*file);
    return CKPT_OK;
}

static void print_item(json_writer *w, const zip_item *t)
{
    json_put_object(w);
    put_text(w, "dtype", t->dtype_name);
    put_text(w, "ours", ckpt_dtype_name(t->dtype));
    put_sizes(w, "shape", t->shape, t->rank);
    put_sizes(w, "strides", t->strides, t->rank);
    put_u64(w, "storage_offset", t->storage_offset);
    put_u64(w, "storage_elements", t->storage_elements);
    put_u64(w, "row_major", (uint64_t)t->is_row_major);
    put_u64(w, "data_offset", t->data_offset);
    put_u64(w, "payload_offset", t->payload_offset);
    put_u64(w, "payload_bytes", t->payload_bytes);
    put_u64(w, "crc", t->payload_crc);
    json_put_object_end(w);
}

static int run_read(int argc, char **argv, json_writer *w)
{
    ckpt_file *file = NULL;
    uint64_t range[2];
    zip_item item;
    ckpt_error err;
    ckpt_code code;

    if ((code = open_range(argv, argc, &file, range, &err)) == CKPT_OK)
        code = zip_item_read(file, range[0], range[1], &item, &err);
    file_close(file, NULL);
    if (code != CKPT_OK)
        return failed(&err);
    print_item(w, &item);
    return 0;
}

static void print_entry(json_writer *w, const dcp_metadata *m, size_t i)
{
    const dcp_entry *e = &m->entries[i];
    ckpt_error err;
    const ckpt_code code = dcp_check_cover(m, i, &err);

    json_put_key(w, e->key);
    json_put_object(w);
    put_text(w, "dtype", e->dtype_name);
    put_text(w, "cover", code == CKPT_OK ? "proven" : err.text);
    put_sizes(w, "size", e->size, e->rank);
    json_put_key(w, "chunks");
    json_put_array(w);
    for (size_t c = e->first_chunk; c < e->first_chunk + e->chunk_count; c++) {
        json_put_object(w);
        put_sizes(w, "offsets", m->chunks[c].offsets, e->rank);
        put_sizes(w, "sizes", m->chunks[c].sizes, e->rank);
        put_text(w, "path", m->files[m->chunks[c].file]);
        put_u64(w, "offset", m->chunks[c].offset);
        put_u64(w, "length", m->chunks[c].length);
        json_put_object_end(w);
    }
    json_put_array_end(w);
    json_put_object_end(w);
}

/* Of the folder that has this `.metadata`. */
static ckpt_code read_metadata(const char *path, dcp_metadata **out, ckpt_error *err)
{
    folder_place place;
    ckpt_code code = folder_open_place(path, &place, err);

    if (code == CKPT_OK)
        code = dcp_read(place.folder, 0, out, err);
    folder_place_release(&place);
    return code;
}

static int run_dcp(char **argv, json_writer *w)
{
    dcp_metadata *m;
    ckpt_error err;

    if (read_metadata(argv[0], &m, &err) != CKPT_OK)
        return failed(&err);
    json_put_object(w);
    for (size_t i = 0; i < m->entry_count; i++)
        print_entry(w, m, i);
    json_put_object_end(w);
    dcp_free(m);
    return 0;
}

static int run_dcp_copy(char **argv)
{
    output out = { fopen(argv[1], "wb") };
    dcp_metadata *m;
    ckpt_error err;
    int status = 0;

    if (out.file == NULL || read_metadata(argv[0], &m, &err) != CKPT_OK)
        return failed(&err);
    if (dcp_write(m, write_out, &out, &err) != CKPT_OK || fclose(out.file) != 0)
        status = failed(&err);
    dcp_free(m);
    return status;
}

static void print_arg(json_writer *w, const common_arg *arg)
{
    switch (arg->kind) {
    case COMMON_BOOL:
        json_put_bool(w, arg->integer != 0);
        break;
    case COMMON_INT:
        json_put_i64(w, arg->integer);
        break;
    case COMMON_FLOAT:
        json_put_double(w, arg->number);
        break;
    case COMMON_TEXT:
        json_put_string(w, arg->text);
        break;
    case COMMON_OTHER:
        json_put_string(w, "<other>");
        break;
    default:
        json_put_null(w);
        break;
    }
}

static int run_common(int argc, char **argv, json_writer *w)
{
    ckpt_file *file = NULL;
    common_pt *common = NULL;
    uint64_t range[2];
    ckpt_error err;
    ckpt_code code;

    if ((code = open_range(argv, argc, &file, range, &err)) == CKPT_OK)
        code = common_pt_read(file, range[0], range[1], &common, &err);
    file_close(file, NULL);
    if (code != CKPT_OK)
        return failed(&err);
    json_put_object(w);
    json_put_key(w, "iteration");
    json_put_i64(w, common->iteration);
    json_put_key(w, "checkpoint_version");
    json_put_double(w, common->checkpoint_version);
    json_put_key(w, "args");
    json_put_object(w);
    for (size_t i = 0; i < common->arg_count; i++) {
        const common_arg *arg = &common->args[i];

        json_put_key(w, arg->name);
        if (arg->kind != COMMON_LIST) {
            print_arg(w, arg);
            continue;
        }
        json_put_array(w);
        for (size_t k = 0; k < arg->item_count; k++)
            print_arg(w, &arg->items[k]);
        json_put_array_end(w);
    }
    json_put_object_end(w);
    json_put_object_end(w);
    common_pt_free(common);
    return 0;
}

static int run_common_write(char **argv)
{
    static const common_arg freq[] = { { .kind = COMMON_INT, .integer = 0 },
                                       { .kind = COMMON_INT, .integer = 1 } };
    static const common_arg args[] = {
        { .name = "num_layers", .kind = COMMON_INT, .integer = 43 },
        { .name = "big", .kind = COMMON_INT, .integer = INT64_C(1) << 40 },
        { .name = "negative", .kind = COMMON_INT, .integer = INT64_MIN },
        { .name = "norm_epsilon", .kind = COMMON_FLOAT, .number = 1e-6 },
        { .name = "bf16", .kind = COMMON_BOOL, .integer = 1 },
        { .name = "fp16", .kind = COMMON_BOOL },
        { .name = "tokenizer", .kind = COMMON_TEXT, .text = "caf\xc3\xa9" },
        { .name = "again", .kind = COMMON_TEXT, .text = "tokenizer" },
        { .name = "nothing", .kind = COMMON_NONE },
        { .name = "moe_layer_freq", .kind = COMMON_LIST, .items = freq, .item_count = 2 },
        { .name = "no_items", .kind = COMMON_LIST },
    };
    const common_pt common = { .args = args, .arg_count = sizeof args / sizeof args[0],
                               .iteration = 1 };
    unsigned char *bytes;
    size_t size;
    ckpt_error err;
    ckpt_code code = common_pt_write(&common, &bytes, &size, &err);

    if (code == CKPT_OK)
        code = file_write_all(argv[0], bytes, size, &err);
    free(bytes);
    return code == CKPT_OK ? 0 : failed(&err);
}

int torch_items_main(int argc, char **argv)
{
    const char *command = argv[1];
    json_writer w;
    int status = 2;

    argc -= 2;
    argv += 2;
    json_writer_begin(&w, json_write_stdio, stdout, 0);
    if (strcmp(command, "write") == 0 && argc == 4)
        return run_write(argv);
    if (strcmp(command, "none") == 0 && argc == 1)
        return run_bytes(0, argv[0]);
    if (strcmp(command, "empty") == 0 && argc == 1)
        return run_bytes(1, argv[0]);
    if (strcmp(command, "dcp-copy") == 0 && argc == 2)
        return run_dcp_copy(argv);
    if (strcmp(command, "common-write") == 0 && argc == 1)
        return run_common_write(argv);
    if (strcmp(command, "read") == 0 && argc >= 1)
        status = run_read(argc, argv, &w);
    else if (strcmp(command, "dcp") == 0 && argc == 1)
        status = run_dcp(argv, &w);
    else if (strcmp(command, "common") == 0 && argc >= 1)
        status = run_common(argc, argv, &w);
    return status == 0 && !json_writer_end(&w) ? 2 : status;
}
