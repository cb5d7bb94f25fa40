/* Opens a checkpoint: format, family and map, which together give the logical tensors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/codes.h"
#include "config_forms.h"
#include "dialect.h"
#include "libckpt/digest.h"
#include "libckpt/encoding.h"
#include "format.h"
#include "notes.h"
#include "remarks.h"
#include "libckpt/options.h"
#include "libckpt/packed.h"
#include "libckpt/recognise.h"
#include "libckpt/size.h"
#include "tokenizer_files.h"
#include "libckpt/text.h"
#include "libckpt/values.h"

ckpt_code format_add_files(const ckpt_format *format, ckpt_store *store, uint32_t count,
                           ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (uint32_t i = 0; i < count && code == CKPT_OK; i++) {
        char name[FORMAT_NAME_BYTES];
        uint32_t number;

        format->file_name(i, count, name);
        code = store_add_file(store, name, &number, err);
    }
    return code;
}

static ckpt_code note_unread(ckpt_checkpoint *c, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < c->unread.count && code == CKPT_OK; i++)
        code = note_add(&c->notes, err, "file '%s' is %s: ignored", c->unread.names[i],
                        c->has_index && strchr(c->unread.names[i], '/') == NULL
                            ? "not in the index"
                            : "not part of the layout");
    return code;
}

/* ---- encodings from the config ---- */

/* A family with FP8 blocks defines which tensors are quantised, and how. For other checkpoints the
 * config declares the scheme: codes of an unsupported scheme must not be decoded by another. */
static ckpt_code read_options(const ckpt_checkpoint *c, map_read_options *out, ckpt_error *err)
{
    const config_scheme scheme = checkpoint_scheme(c);
    const unsigned official = c->family == NULL       ? 0
                              : checkpoint_has_int4(c) ? 1u << ENCODING_INT4_32
                                                       : family_fp8(c->family);
    const int is_strict = c->family == NULL ? strcmp(c->map->family, GENERIC_FAMILY) != 0
                                            : official != 0;
    /* The config may declare another encoding for all quantised weights of a family. */
    const int is_other = official != 0 && scheme.replaces_blocks;

    out->bare_codes = is_strict && !is_other ? BARE_CODES_NONE
                      : scheme.is_decoded    ? BARE_CODES_UNFIT
                                             : BARE_CODES_ALL;
    out->encodings = (official == 0 || is_other ? scheme.encodings : official) |
                     1u << ENCODING_FP4_32 | (scheme.encodings & 1u << ENCODING_NVFP4);
    if (official != 0 && !is_other &&
        (scheme.has_odd_block || (scheme.encodings != 0 && !(scheme.encodings & official))))
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s': %s has a weight_block_size other than that of family %s",
                         c->place.path, checkpoint_config_name(c), c->map->family);
    out->lenient = c->options.lenient;
    out->keep_copies = c->options.keep_copies;
    out->u8_scales = c->options.u8_scales || scheme.has_u8_scales;
    return CKPT_OK;
}

/* ---- completeness ---- */

/* Sets has_no_mtp if all tensors of the optional blocks (MTP) are missing. */
static ckpt_code look_for_blocks(ckpt_checkpoint *c, ckpt_error *err)
{
    int expected = 0;
    int found = 0;

    for (size_t i = 0; i < ckpt_catalog_count(c->official); i++)
        expected |= family_may_lack(c->family, ckpt_catalog_at(c->official, i)->name);
    for (size_t i = 0; i < ckpt_catalog_count(c->reading.logical); i++)
        found |= family_may_lack(c->family, ckpt_catalog_at(c->reading.logical, i)->name);
    c->has_no_mtp = expected && !found;
    return c->has_no_mtp ? note_add(&c->notes, err, CHECKPOINT_NO_MTP) : CKPT_OK;
}

/* The file that contains a tensor, or its start, for errors. */
static const char *path_of(const ckpt_checkpoint *c, const ckpt_tensor *t)
{
    const store_file *f = &c->store->files[t->file];

    return f->file != NULL ? file_path(f->file) : f->name;
}

/* The config is wrong: name the file that was given, or the checkpoint that has it. */
static ckpt_code fail_config(const ckpt_checkpoint *c, ckpt_code code, ckpt_error *err)
{
    if (err == NULL)
        return code;
    return c->config_name == NULL ? ckpt_fail(err, code, "'%s': %s", c->place.path, err->text)
                                  : ckpt_fail(err, code, "%s: %s", c->config_name, err->text);
}

static ckpt_code check_against(ckpt_checkpoint *c, const ckpt_tensor *expected, ckpt_error *err)
{
    const int64_t i = ckpt_catalog_find(c->reading.logical, expected->name);
    const ckpt_tensor *got;
    ckpt_code code;

    if (i < 0 && (c->options.incomplete || !map_carries(c->map, expected->name) ||
                  (c->has_no_mtp && family_may_lack(c->family, expected->name))))
        return CKPT_OK;
    if (i < 0 && !c->options.lenient)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' lacks tensor '%s', which %s requires%s",
                         c->place.path, expected->name, checkpoint_config_name(c),
                         c->has_index ? ", and its index does not name it" : "");
    if (i < 0)
        return note_add(&c->notes, err, "missing tensor '%s'", expected->name);
    got = ckpt_catalog_at(c->reading.logical, (size_t)i);
    if ((code = catalog_check_same(got, expected, "", err)) != CKPT_OK && err != NULL)
        return c->config_name == NULL ? ckpt_fail(err, code, "'%s': %s", path_of(c, got), err->text)
                                      : ckpt_fail(err, code, "'%s': %s, by %s", path_of(c, got),
                                                  err->text, c->config_name);
    return code;
}

/* Is one dtype narrower than another? FP8 and FP4 weights are not considered. */
static int is_narrower(const ckpt_tensor *got, const ckpt_tensor *expected)
{
    if (got->scale_dtype != CKPT_NONE || expected->scale_dtype != CKPT_NONE ||
        ckpt_tensor_is_int(got))
        return 0;
    return ckpt_dtype_bits(got->dtype) < ckpt_dtype_bits(expected->dtype) ||
           (got->dtype == CKPT_F16 && expected->dtype == CKPT_BF16);
}

/* Narrowed tensors have different values, and those that need the wider dtype (routing,
 * hyper-connections) change the computation. One note for each pair of dtypes. */
static ckpt_code note_narrow(ckpt_checkpoint *c, ckpt_error *err)
{
    size_t counts[CKPT_DTYPE_COUNT][CKPT_DTYPE_COUNT];
    const char *first[CKPT_DTYPE_COUNT][CKPT_DTYPE_COUNT];
    ckpt_code code = CKPT_OK;

    memset(counts, 0, sizeof counts);
    for (size_t i = 0; i < ckpt_catalog_count(c->official); i++) {
        const ckpt_tensor *expected = ckpt_catalog_at(c->official, i);
        const int64_t found = ckpt_catalog_find(c->reading.logical, expected->name);
        const ckpt_tensor *got =
            found < 0 ? expected : ckpt_catalog_at(c->reading.logical, (size_t)found);

        if (is_narrower(got, expected) && counts[got->dtype][expected->dtype]++ == 0)
            first[got->dtype][expected->dtype] = got->name;
    }
    for (int got = 0; got < CKPT_DTYPE_COUNT; got++)
        for (int expected = 0; expected < CKPT_DTYPE_COUNT && code == CKPT_OK; expected++)
            if (counts[got][expected] > 0)
                code = note_add(
                    &c->notes, err, "%s %s, narrower than the %s of family %s; the first is '%s'",
                    text_count(counts[got][expected], "tensor is", "tensors are").text,
                    ckpt_dtype_name((ckpt_dtype)got), ckpt_dtype_name((ckpt_dtype)expected),
                    family_name(c->family), first[got][expected]);
    return code;
}

/* Every tensor must belong to the family; some families allow others, with a note. */
static ckpt_code check_members(ckpt_checkpoint *c, const ckpt_catalog *optional, ckpt_error *err)
{
    const char *first = NULL;
    size_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(c->reading.logical); i++) {
        const char *name = ckpt_catalog_at(c->reading.logical, i)->name;

        if (ckpt_catalog_find(c->official, name) >= 0 || ckpt_catalog_find(optional, name) >= 0)
            continue;
        if (!c->options.lenient && !c->options.keep_copies && !family_keeps_others(c->family))
            return ckpt_fail(err, CKPT_E_FORMAT,
                             "unexpected tensor '%s': family '%s' with %s%s does not have it", name,
                             family_name(c->family), c->config_name == NULL ? "this " : "",
                             checkpoint_config_name(c));
        if (count++ == 0)
            first = name;
    }
    if (count > 1)
        return note_add(&c->notes, err, "%zu tensors do not belong to the family: they are kept; "
                        "the first is '%s'", count, first);
    return count == 0 ? CKPT_OK
                      : note_add(&c->notes, err, "tensor '%s' does not belong to the family",
                                 first);
}

static ckpt_code check_family(ckpt_checkpoint *c, ckpt_error *err)
{
    const json_value *config = json_root(c->config);
    ckpt_catalog *optional = NULL;
    ckpt_code code;

    if ((code = family_expand(c->family, config, &c->official, err)) == CKPT_E_FORMAT)
        return fail_config(c, code, err);
    if (code != CKPT_OK || (code = look_for_blocks(c, err)) != CKPT_OK)
        return code;
    for (size_t i = 0; i < ckpt_catalog_count(c->official); i++)
        if ((code = check_against(c, ckpt_catalog_at(c->official, i), err)) != CKPT_OK)
            return code;
    if ((code = family_expand_optional(c->family, config, &optional, err)) == CKPT_OK)
        code = check_members(c, optional, err);
    catalog_free(optional);
    return code == CKPT_OK ? note_narrow(c, err) : code;
}

/* ---- the two sources ---- */

/* Create the source of stored tensors: one extent each, or the extents of their pieces. */
static ckpt_code make_stored(ckpt_checkpoint *c, ckpt_error *err)
{
    ckpt_code code;

    if (c->store->pieces != NULL)
        return source_stored(c->store, c->store->pieces, &c->stored, err);
    if ((code = layout_of_stored(c->store->catalog, &c->stored_layout, err)) != CKPT_OK)
        return code;
    return source_stored(c->store, c->stored_layout, &c->stored, err);
}

/* Create the source of logical tensors, in terms of stored tensors or of pieces of keys. */
static ckpt_code make_logical(ckpt_checkpoint *c, ckpt_error *err)
{
    ckpt_code code;

    c->layout = c->reading.layout;
    if (c->store->pieces != NULL) {
        c->layout = NULL;
        code = layout_compose(c->reading.layout, c->store->pieces, &c->layout, err);
        if (code != CKPT_OK || (code = layout_seal(c->layout, err)) != CKPT_OK)
            return code;
    }
    return source_stored(c->store, c->layout, &c->logical, err);
}

/* Errors of maps lack the path: add it. */
static ckpt_code read_by_map(ckpt_checkpoint *c, ckpt_error *err)
{
    const ckpt_catalog *names = store_names(c->store);
    map_read_options options;
    ckpt_code code;

    memset(&options, 0, sizeof options);
    if ((code = read_options(c, &options, err)) != CKPT_OK)
        return code;
    code = map_read(c->map, names, &options, &c->reading, err);
    if (code == CKPT_E_FORMAT && c->reading.failed != 0 && err != NULL)
        return ckpt_fail(err, code, "'%s': %s",
                         path_of(c, ckpt_catalog_at(names, c->reading.failed - 1)), err->text);
    return code;
}

static ckpt_code note_rows_left_out(ckpt_checkpoint *c, ckpt_error *err)
{
    const ckpt_catalog *names = store_names(c->store);
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(names) && code == CKPT_OK; i++) {
        const map_fate *fate = &c->reading.fates[i];

        if (fate->rows_left_out > 0)
            code = note_add(&c->notes, err, "the last %s of '%s' %s left out: %s",
                            text_count(fate->rows_left_out, "row", "rows").text,
                            ckpt_catalog_at(names, i)->name,
                            fate->rows_left_out == 1 ? "is" : "are", fate->reason);
    }
    return code;
}

/* ---- codes that are not decoded ---- */

typedef struct {
    char form[CODES_FORM_BYTES];
    const char *first;
    size_t count;
} bare_form;

/* Codes without a known scale are kept as stored: one note for each kind. */
static ckpt_code note_bare_codes(ckpt_checkpoint *c, ckpt_error *err)
{
    enum { FORMS_MAX = 16 };
    const ckpt_catalog *logical = c->reading.logical;
    bare_form forms[FORMS_MAX];
    size_t form_count = 0;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(logical); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(logical, i);
        char form[CODES_FORM_BYTES];
        size_t f = 0;

        if (!codes_are_bare(t))
            continue;
        codes_form(logical, t, form);
        while (f < form_count && strcmp(forms[f].form, form) != 0)
            f++;
        if (f == form_count && form_count < FORMS_MAX) {
            form_count++;
            memcpy(forms[f].form, form, sizeof form);
            forms[f].first = t->name;
            forms[f].count = 0;
        }
        if (f < form_count)
            forms[f].count++;
    }
    for (size_t f = 0; f < form_count && code == CKPT_OK; f++)
        code = note_add(&c->notes, err, "%s as stored, not values: %s; the first is '%s'",
                        text_count(forms[f].count, "tensor is codes", "tensors are codes").text,
                        forms[f].form, forms[f].first);
    return code;
}

/* Number of blocks mtp.{m} in the files: one more than the largest m. */
static uint64_t count_drafters(const ckpt_checkpoint *c)
{
    const ckpt_catalog *names = store_names(c->store);
    const size_t prefix = c->map->prefix == NULL ? 0 : strlen(c->map->prefix);
    uint64_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(names); i++) {
        const char *name = ckpt_catalog_at(names, i)->name;
        uint64_t m;

        if (strlen(name) > prefix && digest_mtp_block(name + prefix, &m) && m < UINT16_MAX)
            count = size_max(count, m + 1);
    }
    return count;
}

/* The family's text may ask for members that transformers 5 spells otherwise. */
static ckpt_code complete_config(ckpt_checkpoint *c, ckpt_error *err)
{
    json_document *completed = NULL;
    ckpt_code code;

    if (c->family == NULL || !family_asks(c->family, "compress_ratios"))
        return CKPT_OK;
    code = config_complete(c->config_text, json_root(c->config), count_drafters(c), &completed,
                           err);
    if (code == CKPT_E_FORMAT)
        return fail_config(c, code, err);
    if (completed != NULL) {
        json_free(c->config);
        c->config = completed;
    }
    return code;
}

const char *checkpoint_config_name(const ckpt_checkpoint *c)
{
    return c->config_name == NULL ? "config.json" : c->config_name;
}

/* The numbers of a map are the config's. */
static ckpt_code find_own_map(ckpt_checkpoint *c, ckpt_error *err)
{
    const ckpt_code code = checkpoint_find_own_map(c, err);

    return code == CKPT_E_FORMAT && c->config != NULL && c->options.map_file == NULL
               ? fail_config(c, code, err)
               : code;
}

static ckpt_code open_with(ckpt_checkpoint *c, ckpt_error *err)
{
    ckpt_code code;

    if ((code = c->format->open(c, err)) != CKPT_OK || (code = note_unread(c, err)) != CKPT_OK)
        return code;
    if (ckpt_catalog_count(c->store->catalog) == 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' has no tensors", c->place.path);
    if ((code = make_stored(c, err)) != CKPT_OK || (code = find_own_map(c, err)) != CKPT_OK ||
        (c->options.map_file == NULL && (code = dialect_settle(c, err)) != CKPT_OK) ||
        (code = complete_config(c, err)) != CKPT_OK || (code = read_by_map(c, err)) != CKPT_OK ||
        (code = note_rows_left_out(c, err)) != CKPT_OK ||
        (code = note_bare_codes(c, err)) != CKPT_OK ||
        (code = checkpoint_remark(c, err)) != CKPT_OK)
        return code;
    if (c->family != NULL && !c->is_partial && (code = check_family(c, err)) != CKPT_OK)
        return code;
    return make_logical(c, err);
}

/* No format matches: report what the file is, if it can be recognised. */
static ckpt_code fail_unread(const folder_place *place, ckpt_error *err)
{
    const int exists = place->name == NULL || folder_has(place->folder, place->name);
    const ckpt_code code = exists ? CKPT_E_FORMAT : CKPT_E_IO;
    char what[RECOGNISE_BYTES];

    if (recognise_place(place, what))
        return ckpt_fail(err, code, "'%s' %s", place->path, what);
    if (!exists)
        return ckpt_fail(err, code, "'%s' does not exist", place->path);
    return ckpt_fail(err, code,
                     "'%s' is not a checkpoint: expected safetensors (a directory, a file or "
                     "model-parallel shards), a torch_dist directory, GGUF files or a packed "
                     "checkpoint",
                     place->path);
}

/* Roots that the files themselves hold go before that of the packed file that they are in. */
static void take_packed_root(ckpt_checkpoint *c)
{
    const char *root = packed_root(c->place.folder);

    if (c->stored_root[0] != '\0' || root == NULL)
        return;
    memcpy(c->stored_root, root, sizeof c->stored_root);
    c->root_key = PACKED_ROOT_KEY;
}

/* The stored root is of the values as they were written. */
static ckpt_code note_root(ckpt_checkpoint *c, ckpt_error *err)
{
    if (c->stored_root[0] == '\0' || checkpoint_is_plain(&c->options))
        return CKPT_OK;
    return note_add(&c->notes, err, "the root in the key %s of '%s' is not compared: --map, "
                    "--keep-copies, --u8-scales and --dialect read other tensors or values",
                    checkpoint_root_key(c), c->place.path);
}

ckpt_code checkpoint_open_place(folder_place *place, const ckpt_open_options *options,
                                ckpt_checkpoint **out, ckpt_error *err)
{
    ckpt_checkpoint *c = NULL;
    ckpt_code code = CKPT_OK;
    size_t i = 0;

    while (ckpt_formats[i] != NULL && !ckpt_formats[i]->detect(place))
        i++;
    if (ckpt_formats[i] == NULL)
        code = fail_unread(place, err);
    else if ((c = calloc(1, sizeof *c)) == NULL)
        code = ckpt_fail_memory(err, "a checkpoint", sizeof *c);
    if (code != CKPT_OK) {
        folder_place_release(place);
        return code;
    }
    c->format = ckpt_formats[i];
    c->place = *place;
    memset(place, 0, sizeof *place);
    if (options != NULL)
        c->options = *options;
    if ((code = open_with(c, err)) != CKPT_OK) {
        ckpt_close(c);
        return code;
    }
    take_packed_root(c);
    if ((code = note_root(c, err)) != CKPT_OK) {
        ckpt_close(c);
        return code;
    }
    *out = c;
    return CKPT_OK;
}

ckpt_code ckpt_open(const char *path, const ckpt_open_options *options, ckpt_checkpoint **out,
                    ckpt_error *err)
{
    folder_place place;
    ckpt_code code;

    if ((code = kernels_require(err)) != CKPT_OK)
        return code;
    if (options != NULL &&
        (code = options_check_reserved(options->reserved, CKPT_RESERVED - 1, err)) != CKPT_OK)
        return code;
    if (options != NULL && options->places != NULL && options->places->knows(path))
        code = options->places->open(options->places, path, &place, err);
    else if ((code = file_check_reachable(path, err)) != CKPT_OK)
        return code;
    else
        code = folder_open_place(path, &place, err);
    if (code == CKPT_OK)
        return checkpoint_open_place(&place, options, out, err);
    folder_place_release(&place);
    return code;
}

void ckpt_close(ckpt_checkpoint *checkpoint)
{
    if (checkpoint == NULL)
        return;
    ckpt_source_free(checkpoint->logical);
    ckpt_source_free(checkpoint->stored);
    layout_free(checkpoint->stored_layout);
    if (checkpoint->layout != checkpoint->reading.layout)
        layout_free(checkpoint->layout);
    map_reading_release(&checkpoint->reading);
    catalog_free(checkpoint->official);
    map_free(checkpoint->map);
    family_free(checkpoint->family);
    json_free(checkpoint->config);
    free(checkpoint->config_name);
    json_free(checkpoint->modelopt);
    free(checkpoint->config_text);
    file_list_free(&checkpoint->extras);
    file_list_free(&checkpoint->unread);
    file_list_free(&checkpoint->notes);
    store_free(checkpoint->store);
    folder_close(checkpoint->data_folder);
    folder_place_release(&checkpoint->place);
    free(checkpoint);
}

void checkpoint_give_up_stored(ckpt_checkpoint *c)
{
    ckpt_source_free(c->stored);
    layout_free(c->stored_layout);
    c->stored = NULL;
    c->stored_layout = NULL;
}

void checkpoint_give_up_official(ckpt_checkpoint *c)
{
    catalog_free(c->official);
    c->official = NULL;
}

ckpt_source *ckpt_stored(const ckpt_checkpoint *checkpoint)
{
    return checkpoint->stored;
}

ckpt_source *ckpt_logical(const ckpt_checkpoint *checkpoint)
{
    return checkpoint->logical;
}

const char *ckpt_layout_name(const ckpt_checkpoint *checkpoint)
{
    return checkpoint->format->name;
}

const char *ckpt_family_name(const ckpt_checkpoint *checkpoint)
{
    return checkpoint->map->family;
}

const char *ckpt_names_style(const ckpt_checkpoint *checkpoint)
{
    return checkpoint->map->names;
}

const char *ckpt_file_name(const ckpt_checkpoint *checkpoint, uint32_t i)
{
    return i < checkpoint->store->file_count ? checkpoint->store->files[i].name : NULL;
}

const char *checkpoint_path(const ckpt_checkpoint *checkpoint)
{
    return checkpoint->place.path;
}

const ckpt_folder *checkpoint_folder(const ckpt_checkpoint *checkpoint)
{
    return checkpoint->place.name == NULL ? checkpoint->place.folder : NULL;
}

ckpt_code checkpoint_check_unchanged(const ckpt_checkpoint *checkpoint, ckpt_error *err)
{
    return folder_check_unchanged(checkpoint->place.folder, err);
}

ckpt_store *checkpoint_store(const ckpt_checkpoint *checkpoint)
{
    return checkpoint->store;
}

const json_value *checkpoint_config(const ckpt_checkpoint *checkpoint)
{
    return checkpoint->config == NULL ? NULL : json_root(checkpoint->config);
}

const file_list *checkpoint_notes(const ckpt_checkpoint *checkpoint)
{
    return &checkpoint->notes;
}

map_ledger checkpoint_ledger(const ckpt_checkpoint *checkpoint)
{
    return map_ledger_of(checkpoint->reading.fates,
                         ckpt_catalog_count(store_names(checkpoint->store)));
}

checkpoint_tokenizer checkpoint_tokenizer_of(const ckpt_checkpoint *c)
{
    if (c->has_vocabulary)
        return TOKENIZER_IN_WEIGHTS;
    return file_list_has(&c->extras, TOKENIZER_FILE) ? TOKENIZER_IN_FILES : TOKENIZER_NONE;
}

ckpt_code checkpoint_read_vocabulary(const ckpt_checkpoint *c, ckpt_vocabulary *out,
                                     ckpt_error *err)
{
    const tokenizer_place place = { .folder = c->place.folder, .files = &c->extras,
                                    .config = checkpoint_config(c) };

    return c->has_vocabulary ? c->format->read_vocabulary(c, out, err)
                             : tokenizer_files_read(&place, out, err);
}

int checkpoint_is_plain(const ckpt_open_options *o)
{
    return o->map_file == NULL && !o->keep_copies && !o->u8_scales && o->dialect == NULL;
}

/* A map of another family gives tensors other names, and with them another root. */
const char *checkpoint_stored_root(const ckpt_checkpoint *c)
{
    const int is_as_written = checkpoint_is_plain(&c->options) &&
                              strcmp(c->map->family, GENERIC_FAMILY) != 0;

    return is_as_written && c->stored_root[0] != '\0' ? c->stored_root : NULL;
}

const char *checkpoint_root_key(const ckpt_checkpoint *c)
{
    return c->root_key == NULL ? CHECKPOINT_ROOT_KEY : c->root_key;
}

ckpt_code checkpoint_check_root(const ckpt_checkpoint *c, const char *root, const char *advice,
                                ckpt_error *err)
{
    const char *stored = checkpoint_stored_root(c);

    return stored == NULL || strcmp(stored, root) == 0
               ? CKPT_OK
               : ckpt_fail(err, CKPT_E_FORMAT, "'%s': its key %s says %s, but its values have the "
                           "root %s: they changed since it was written; %s", c->place.path,
                           checkpoint_root_key(c), stored, root, advice);
}

ckpt_code checkpoint_note_root(const ckpt_checkpoint *c, const char *why, file_list *notes,
                               ckpt_error *err)
{
    /* The bytes of a packed checkpoint are compared with their hashes when they are read. */
    return checkpoint_stored_root(c) == NULL || c->root_key != NULL
               ? CKPT_OK
               : note_add(notes, err, "the root in the key %s of '%s' is not compared: %s",
                          checkpoint_root_key(c), c->place.path, why);
}

const char *ckpt_note(const ckpt_checkpoint *checkpoint, size_t i)
{
    return i < checkpoint->notes.count ? checkpoint->notes.names[i] : NULL;
}

uint64_t ckpt_checkpoint_bytes(const ckpt_checkpoint *c)
{
    enum { PER_TENSOR_BYTES = sizeof(map_fate) + 16 };      /* and a digest */

    if (c == NULL)
        return 0;
    return packed_bytes(c->place.folder) + catalog_bytes(c->store->catalog) +
           catalog_bytes(c->reading.logical) +
           layout_bytes(c->reading.layout) +
           layout_bytes(c->store->pieces != NULL ? c->layout : c->stored_layout) +
           layout_bytes(c->store->pieces) +
           ckpt_catalog_count(c->store->catalog) * PER_TENSOR_BYTES +
           c->store->sum_count * sizeof *c->store->sums + c->place.folder->held_bytes +
           (c->official == NULL ? 0 : catalog_bytes(c->official));
}
