/*
 * convert_metadata.c: `__metadata__` of renumbered files.
 *
 * Members common to all files of the inputs go into every file of the target; the rest belonged to
 * files that no longer exist and is noted.
 */
#include <stdlib.h>
#include <string.h>

#include "libckpt/buffer.h"
#include "convert_plan.h"
#include "formats/hf.h"
#include "libckpt/json.h"
#include "formats/notes.h"
#include "libckpt/table.h"
#include "libckpt/text.h"

typedef struct {
    json_document *first;          /* metadata of the first file, or NULL */
    const json_value **members;    /* its value; NULL if another file has a different one */
    table index;                   /* key -> member */
    size_t *said_by;               /* by member: how many files agree */
    size_t file_count;
    file_list dropped;             /* keys, in any order, repeated */
} common_metadata;

static ckpt_code begin_common(common_metadata *m, ckpt_error *err)
{
    const json_value *root = json_root(m->first);
    const size_t count = json_count(root);
    size_t i = 0;

    m->members = calloc(count + 1, sizeof *m->members);
    m->said_by = calloc(count + 1, sizeof *m->said_by);
    if (m->members == NULL || m->said_by == NULL)
        return ckpt_fail_memory(err, "metadata", count);
    for (const json_value *v = json_first(root); v != NULL; v = json_next(v)) {
        m->members[i] = v;
        m->said_by[i] = 1;
        if (table_add(&m->index, json_key(v), i++) != TABLE_ADDED)
            return ckpt_fail_memory(err, "metadata", count);
    }
    return CKPT_OK;
}

static ckpt_code count_members(common_metadata *m, const json_value *metadata, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (const json_value *v = json_first(metadata); v != NULL && code == CKPT_OK;
         v = json_next(v)) {
        uint64_t i;

        if (table_find(&m->index, json_key(v), &i) && json_equal(m->members[i], v))
            m->said_by[i]++;
        else
            code = file_list_add(&m->dropped, json_key(v), err);
    }
    return code;
}

static ckpt_code add_file(common_metadata *m, const char *text, ckpt_error *err)
{
    json_document *document = NULL;
    ckpt_code code;

    m->file_count++;
    if (text == NULL)
        return CKPT_OK;
    if ((code = json_parse(text, strlen(text), "__metadata__", &document, err)) != CKPT_OK)
        return code;
    if (m->file_count == 1) {
        m->first = document;
        return begin_common(m, err);
    }
    code = count_members(m, json_root(document), err);
    json_free(document);
    return code;
}

static ckpt_code add_files(common_metadata *m, const ckpt_checkpoint *from, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; from != NULL && i < from->store->file_count && code == CKPT_OK; i++)
        code = add_file(m, from->store->files[i].metadata, err);
    return code;
}

/* 1 for "format": "pt", which says that a safetensors file is of torch, and nothing about what a
 * file of another layout holds. */
static int is_format_pt(const json_value *v)
{
    return strcmp(json_key(v), "format") == 0 && json_string(v) != NULL &&
           strcmp(json_string(v), "pt") == 0;
}

/* The common members as JSON text; NULL if none. Other members are added to dropped. */
static ckpt_code take_common(common_metadata *m, int is_carried, char **out, ckpt_error *err)
{
    byte_buffer text = { .bytes = NULL };
    size_t kept = 0;
    ckpt_code code = CKPT_OK;
    json_writer w;

    *out = NULL;
    json_writer_begin(&w, byte_buffer_write, &text, 0);
    json_put_object(&w);
    for (size_t i = 0; i < m->index.count && code == CKPT_OK; i++) {
        const json_value *v = m->members[i];

        if (!is_carried && is_format_pt(v))
            continue;
        if (m->said_by[i] < m->file_count || !is_carried) {
            code = file_list_add(&m->dropped, json_key(v), err);
            continue;
        }
        json_member_string(&w, json_key(v), json_string(v));
        kept++;
    }
    json_put_object_end(&w);
    if (code == CKPT_OK && (!json_writer_end(&w) || byte_buffer_write(&text, "", 1) != 0))
        code = ckpt_fail_memory(err, "metadata", text.used);
    if (code != CKPT_OK || kept == 0)
        free(text.bytes);
    else
        *out = text.bytes;
    return code;
}

static ckpt_code note_dropped(job_plan *plan, file_list *dropped, int is_carried,
                              ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    if (dropped->count > 1)
        qsort(dropped->names, dropped->count, sizeof *dropped->names, text_order);
    for (size_t i = 0; i < dropped->count && code == CKPT_OK; i++)
        if (i == 0 || strcmp(dropped->names[i], dropped->names[i - 1]) != 0)
            code = note_add(&plan->notes, err, "__metadata__ '%s' is dropped: %s",
                            dropped->names[i],
                            is_carried ? "not all files have the same"
                                       : "the layout cannot store it");
    return code;
}

ckpt_code convert_keep_metadata(job_plan *plan, ckpt_error *err)
{
    const int is_carried = plan->options.format == &format_hf;
    common_metadata m = { .first = NULL };
    char *text = NULL;
    ckpt_code code;

    table_init(&m.index);
    if ((code = add_files(&m, plan->source, err)) == CKPT_OK &&
        (code = add_files(&m, plan->fill, err)) == CKPT_OK &&
        (code = take_common(&m, is_carried, &text, err)) == CKPT_OK)
        code = note_dropped(plan, &m.dropped, is_carried, err);
    for (size_t i = 0; i < plan->store->file_count && text != NULL && code == CKPT_OK; i++)
        if ((plan->store->files[i].metadata = strdup(text)) == NULL)
            code = ckpt_fail_memory(err, "metadata", strlen(text));
    free(text);
    free(m.members);
    free(m.said_by);
    file_list_free(&m.dropped);
    table_release(&m.index);
    json_free(m.first);
    return code;
}
