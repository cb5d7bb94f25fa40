/* Reads GGUF files: one, or all of a split model. */
#include "gguf.h"

#include <stdlib.h>
#include <string.h>

#include "formats/notes.h"
#include "gguf_config.h"
#include "gguf_split.h"
#include "gguf_tokens.h"
#include "gguf_write.h"
#include "libckpt/config_compare.h"
#include "libckpt/digest.h"
#include "libckpt/map.h"
#include "libckpt/text.h"

static const char *const map_names[] = { "gguf", NULL };

typedef struct {
    ckpt_checkpoint *out;
    gguf_head first;               /* of the first file, with the keys of the model */
    uint64_t tensor_count;
    ckpt_error *err;
} gguf_reader;

/* ---- which files ---- */

static int is_gguf(const char *name)
{
    return text_ends_with(name, GGUF_SUFFIX);
}

static int detect(const folder_place *place)
{
    int found = 0;

    if (place->name != NULL)
        return is_gguf(place->name) && folder_has(place->folder, place->name);
    return folder_find_name(place->folder, is_gguf, &found, NULL) == CKPT_OK && found;
}

typedef struct {
    file_list files;
    ckpt_code code;
    ckpt_error *err;
} file_finder;

static file_role take_file(void *context, const char *name)
{
    file_finder *f = context;

    if (!is_gguf(name))
        return FILE_CARRIED;
    if (strchr(name, '/') != NULL)
        return FILE_UNREAD;
    if (f->code == CKPT_OK)
        f->code = file_list_add(&f->files, name, f->err);
    return FILE_OWN;
}

/* 1 when both are files of one split model. */
static int are_together(const char *a, const char *b)
{
    size_t stems[2];
    uint32_t numbers[2];
    uint32_t counts[2];

    return gguf_split_parse(a, &stems[0], &numbers[0], &counts[0]) &&
           gguf_split_parse(b, &stems[1], &numbers[1], &counts[1]) && stems[0] == stems[1] &&
           counts[0] == counts[1] && strncmp(a, b, stems[0]) == 0;
}

static ckpt_code choose_only(const ckpt_checkpoint *out, const file_list *files,
                             ckpt_error *err)
{
    for (size_t i = 1; i < files->count; i++)
        if (!are_together(files->names[0], files->names[i]))
            return ckpt_fail(err, CKPT_E_FORMAT,
                             "'%s' has more than one model: '%s' and '%s'; name one of them",
                             out->place.path, files->names[0], files->names[i]);
    return CKPT_OK;
}

/* Put the file, or all files of its model, into the store. */
static ckpt_code add_files(gguf_reader *r, const char *name)
{
    ckpt_store *store = r->out->store;
    const ckpt_folder *folder = r->out->place.folder;
    uint32_t number;
    uint32_t count;
    uint32_t added;
    size_t stem;
    ckpt_code code = CKPT_OK;

    if (!gguf_split_parse(name, &stem, &number, &count))
        return store_add_file(store, name, &added, r->err);
    for (uint32_t i = 1; i <= count && code == CKPT_OK; i++) {
        char member[GGUF_PATH_BYTES];

        if (!gguf_split_name(name, stem, i, count, member))
            return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' has too long a name", name);
        if (!folder_has(folder, member))
            return ckpt_fail(r->err, CKPT_E_IO, "'%s' is one of %u files, of which '%s' does not "
                             "exist", name, count, member);
        code = store_add_file(store, member, &added, r->err);
    }
    return code;
}

/* ---- one file ---- */

static ckpt_code fail_split(const gguf_reader *r, const gguf_head *head, const char *key,
                            uint64_t expected)
{
    uint64_t got;

    if (!gguf_head_u64(head, key, &got))
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s' has no number '%s', expected %llu by its "
                         "name", file_path(head->file), key, (unsigned long long)expected);
    return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': key '%s' is %llu, expected %llu",
                     file_path(head->file), key, (unsigned long long)got,
                     (unsigned long long)expected);
}

/* Check that the split keys of file i agree with its name. */
static ckpt_code check_split(const gguf_reader *r, const gguf_head *head, uint32_t i)
{
    const uint64_t files = r->out->store->file_count;
    uint64_t count = 1;
    uint64_t number = 0;
    const int is_told = gguf_head_u64(head, "split.count", &count);

    if (files == 1 && count <= 1)
        return CKPT_OK;
    if (files == 1)
        return ckpt_fail(r->err, CKPT_E_FORMAT,
                         "'%s' is one of %llu files: name it as in STEM-00001-of-%05llu.gguf, "
                         "beside the others", file_path(head->file), (unsigned long long)count,
                         (unsigned long long)count);
    if (!is_told || count != files)
        return fail_split(r, head, "split.count", files);
    return gguf_head_u64(head, "split.no", &number) && number == i
               ? CKPT_OK : fail_split(r, head, "split.no", i);
}

/* Check the number of tensors in all files, if the key exists. */
static ckpt_code check_total(const gguf_reader *r)
{
    static const char key[] = "split.tensors.count";
    uint64_t total;

    return gguf_head_find(&r->first, key) == NULL ||
                   (gguf_head_u64(&r->first, key, &total) && total == r->tensor_count)
               ? CKPT_OK : fail_split(r, &r->first, key, r->tensor_count);
}

/* Make a tensor one of codes that are not decoded: its last dimension is bytes per row. */
static void set_codes(ckpt_tensor *t, const gguf_type *type)
{
    uint64_t *cols = &t->shape[t->rank - 1];

    catalog_set_plain(t, CKPT_U8);
    t->codes_name = type->name;
    *cols = *cols / type->block_values * type->block_bytes;
}

/* 1 when names divide stacks: those of a family, or of a map that was given. */
static ckpt_code divides_stacks(const ckpt_checkpoint *c, int *divides, ckpt_error *err)
{
    ckpt_family *family = NULL;
    ckpt_code code = CKPT_OK;

    if (c->config != NULL)
        code = checkpoint_find_family(json_root(c->config), &family, err);
    *divides = family != NULL || (c->config != NULL && c->options.map_file != NULL);
    family_free(family);
    return code;
}

/* Blocks of NVFP4 are multiplied by the scale beside them. A stack of matrices has one for each,
 * which are values only under names that divide it. */
static ckpt_code keep_stacked_codes(const ckpt_checkpoint *c, ckpt_error *err)
{
    ckpt_catalog *stored = c->store->catalog;
    int divides;
    ckpt_code code = divides_stacks(c, &divides, err);

    for (size_t i = 0; i < ckpt_catalog_count(stored) && code == CKPT_OK && !divides; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(stored, i);
        const ckpt_tensor *scale =
            t->stored_form == CKPT_FORM_NVFP4 ? pair_find_scale(stored, t->name) : NULL;

        if (scale != NULL && ckpt_tensor_cols(scale) != 1)
            set_codes(catalog_edit(stored, i), gguf_type_of(t));
    }
    return code;
}

static ckpt_code add_tensor(const gguf_reader *r, const gguf_info *info, uint32_t file)
{
    const ckpt_catalog *catalog = r->out->store->catalog;
    ckpt_tensor t = { .name = info->name, .dtype = info->type->dtype, .rank = info->rank,
                      .file = file, .offset = info->offset };
    const int64_t other = ckpt_catalog_find(catalog, info->name);

    for (uint32_t d = 0; d < t.rank; d++)
        t.shape[t.rank - 1 - d] = info->ne[d];
    t.is_numbers = t.dtype != CKPT_NONE;
    if (info->type->form != CKPT_FORM_APART)
        stored_form_set(&t, info->type->form);
    else if (t.dtype == CKPT_NONE)
        set_codes(&t, info->type);
    if (other >= 0)
        return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': tensor '%s' is there twice%s%s",
                         r->out->place.path, info->name,
                         ckpt_catalog_at(catalog, (size_t)other)->file == file ? "" : ", also in ",
                         ckpt_catalog_at(catalog, (size_t)other)->file == file
                             ? ""
                             : r->out->store->files[ckpt_catalog_at(catalog, (size_t)other)->file]
                                   .name);
    return catalog_add(r->out->store->catalog, &t, r->err);
}

static ckpt_code add_tensors(gguf_reader *r, const gguf_head *head, uint32_t i)
{
    store_file *file = &r->out->store->files[i];
    ckpt_code code = check_split(r, head, i);

    file->size_bytes = file_size(file->file);
    file->header_bytes = (size_t)head->data_offset;
    file->header_hash = head->hash;
    r->tensor_count += head->info_count;
    for (size_t t = 0; t < head->info_count && code == CKPT_OK; t++)
        code = add_tensor(r, &head->infos[t], i);
    return code;
}

static ckpt_code read_file(gguf_reader *r, uint32_t i)
{
    gguf_head head;
    ckpt_code code;

    if ((code = store_open_file(r->out->store, i, 0, r->err)) != CKPT_OK ||
        (code = gguf_head_read(r->out->store->files[i].file, &head, r->err)) != CKPT_OK)
        return code;
    code = add_tensors(r, &head, i);
    if (i == 0)
        r->first = head;
    else
        gguf_head_release(&head);
    return code;
}

/* ---- the model ---- */

static ckpt_code compare_configs(gguf_reader *r, const json_value *from_keys)
{
    config_meaning keys = { NULL, 0 };
    config_meaning beside = { NULL, 0 };
    config_comparison found = { .differing = NULL };
    ckpt_code code;

    if ((code = config_meaning_read(from_keys, &keys, r->err)) == CKPT_OK &&
        (code = config_meaning_read(json_root(r->out->config), &beside, r->err)) == CKPT_OK &&
        (code = config_meaning_compare(&keys, &beside, 0, &found, r->err)) == CKPT_OK &&
        found.count > 0)
        code = ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': the keys of the file say that %s is %s, but "
                         "config.json beside it %s: move one of them away, or give --config",
                         r->out->place.path, found.differing[0].name,
                         found.differing[0].a == NULL ? "absent" : found.differing[0].a,
                         found.differing[0].b == NULL ? "lacks it" : found.differing[0].b);
    config_comparison_release(&found);
    config_meaning_release(&keys);
    config_meaning_release(&beside);
    return code;
}

/* Programs that run the file read its keys, not what lies beside it: both must say the same. */
static ckpt_code check_config(gguf_reader *r)
{
    char missing[GGUF_WORD_BYTES];
    json_document *made = NULL;
    char *text = NULL;
    ckpt_code code = gguf_config_make(&r->first, json_root(r->out->config), &text, missing,
                                      r->err);

    if (code == CKPT_OK && text != NULL && missing[0] == '\0' &&
        (code = json_parse(text, strlen(text), r->out->place.path, &made, r->err)) == CKPT_OK)
        code = compare_configs(r, json_root(made));
    json_free(made);
    free(text);
    return code;
}

/* What the keys say beside the config: a tokenizer, and the root of the values as they were
 * written. */
static ckpt_code take_stored(gguf_reader *r)
{
    const char *root = gguf_head_text(&r->first, CHECKPOINT_ROOT_KEY);

    r->out->has_vocabulary = gguf_head_find(&r->first, VOCABULARY_TOKENS_KEY) != NULL;
    if (gguf_head_find(&r->first, CHECKPOINT_ROOT_KEY) == NULL)
        return CKPT_OK;
    if (root == NULL || !digest_is_root(root))
        return note_add(&r->out->notes, r->err, "the key %s of '%s' is not compared: it holds no "
                        "root, which is a text of %d hexadecimal digits", CHECKPOINT_ROOT_KEY,
                        r->out->place.path, CKPT_ROOT_HEX - 1);
    memcpy(r->out->stored_root, root, CKPT_ROOT_HEX);
    return CKPT_OK;
}

static ckpt_code read_vocabulary(const ckpt_checkpoint *c, ckpt_vocabulary *out, ckpt_error *err)
{
    gguf_head head;
    ckpt_code code = gguf_head_read(c->store->files[0].file, &head, err);

    vocabulary_init(out);
    if (code == CKPT_OK)
        code = gguf_tokens_read(&head, out, err);
    gguf_head_release(&head);
    return code;
}

/* Derive the config from the keys, unless config.json exists or --config was given. */
static ckpt_code take_config(gguf_reader *r)
{
    ckpt_checkpoint *out = r->out;
    char missing[GGUF_WORD_BYTES];
    ckpt_code code;

    if (out->config != NULL)
        return out->options.config == NULL ? check_config(r) : CKPT_OK;
    code = gguf_config_make(&r->first, NULL, &out->config_text, missing, r->err);
    if (code != CKPT_OK)
        return code;
    if (missing[0] != '\0')
        return note_add(&out->notes, r->err, "key '%s' is missing, so tensors keep their names; "
                        "--config tells what the keys do not", missing);
    out->has_made_config = out->config_text != NULL;
    if (out->config_text == NULL)
        return CKPT_OK;
    return json_parse(out->config_text, strlen(out->config_text), out->place.path, &out->config,
                      r->err);
}

static ckpt_code read_model(gguf_reader *r, const char *name)
{
    ckpt_code code = add_files(r, name);

    for (uint32_t i = 0; i < r->out->store->file_count && code == CKPT_OK; i++)
        code = read_file(r, i);
    if (code == CKPT_OK)
        code = check_total(r);
    if (code == CKPT_OK)
        code = take_stored(r);
    if (code == CKPT_OK)
        code = take_config(r);
    return code == CKPT_OK ? keep_stacked_codes(r->out, r->err) : code;
}

/* A single file uses --config, and ignores a config.json beside it. */
static ckpt_code find_model(gguf_reader *r, file_list *files)
{
    ckpt_checkpoint *out = r->out;
    file_finder finder = { .err = r->err };
    ckpt_code code;

    if (out->place.name != NULL) {
        if ((code = checkpoint_take_config(out, r->err)) != CKPT_OK)
            return code;
        return file_list_add(files, out->place.name, r->err);
    }
    code = checkpoint_take_extras(out, take_file, &finder, r->err);
    *files = finder.files;
    if (code != CKPT_OK || (code = finder.code) != CKPT_OK ||
        (code = choose_only(out, files, r->err)) != CKPT_OK)
        return code;
    return checkpoint_read_config(out, r->err);
}

static ckpt_code open_model(ckpt_checkpoint *out, ckpt_error *err)
{
    gguf_reader r = { .out = out, .err = err };
    file_list files = { NULL, 0 };
    ckpt_code code;

    if ((out->store = store_create_in(out->place.folder)) == NULL)
        return ckpt_fail_memory(err, "a checkpoint", sizeof *out->store);
    code = find_model(&r, &files);
    if (code == CKPT_OK)
        code = read_model(&r, files.names[0]);
    gguf_head_release(&r.first);
    file_list_free(&files);
    return code;
}

const ckpt_format format_gguf = {
    .name = "gguf",
    .map_names = map_names,
    .ending = GGUF_SUFFIX,
    .detect = detect,
    .open = open_model,
    .read_vocabulary = read_vocabulary,
    .file_name = gguf_file_name,
    .file_bytes = 48 * UINT64_C(1000000000), /* hubs take 50 GB */
    .checks_ids = 1,
    .form = gguf_form,
    .lay_out = gguf_lay_out,
    .finish = gguf_finish,
};
