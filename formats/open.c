/* Opens a checkpoint: format, family and map, which together give the logical tensors. */
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
#include "libckpt/text.h"

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

/* The encodings of quantised weights that the family itself defines; 0: it defines none. */
static unsigned official_encodings(const ckpt_checkpoint *c)
{
    if (c->family == NULL)
        return 0;
    return checkpoint_has_int4(c) ? 1u << ENCODING_INT4_32 : family_fp8(c->family);
}

/*
 * A family with FP8 blocks defines which tensors are quantised, and how, unless the config declares
 * another encoding for all of them. For other checkpoints the config declares the scheme: codes of
 * an unsupported scheme must not be decoded by another.
 */
static ckpt_code read_options(const ckpt_checkpoint *c, map_read_options *out, ckpt_error *err)
{
    const config_scheme scheme = checkpoint_scheme(c);
    const unsigned official = official_encodings(c);
    const int is_defined = official != 0 && !scheme.replaces_blocks;
    /* The map is a family's, but no config tells which of its tensors are quantised. */
    const int is_unknown = c->family == NULL && strcmp(c->map->family, GENERIC_FAMILY) != 0;

    if (is_defined &&
        (scheme.has_odd_block || (scheme.encodings != 0 && !(scheme.encodings & official))))
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s': %s has a weight_block_size other than that of family %s",
                         c->place.path, checkpoint_config_name(c), c->map->family);
    if (is_defined || is_unknown)
        out->bare_codes = BARE_CODES_NONE;
    else if (scheme.is_decoded)
        out->bare_codes = BARE_CODES_UNFIT;
    else
        out->bare_codes = BARE_CODES_ALL;
    out->encodings = (is_defined ? official : scheme.encodings) | 1u << ENCODING_FP4_32 |
                     (scheme.encodings & 1u << ENCODING_NVFP4);
    out->lenient = c->options.lenient;
    out->keep_copies = c->options.keep_copies;
    out->u8_scales = c->options.u8_scales || scheme.has_u8_scales;
    return CKPT_OK;
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
                         checkpoint_path_of(c, ckpt_catalog_at(names, c->reading.failed - 1)),
                         err->text);
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
        return checkpoint_fail_config(c, code, err);
    if (completed != NULL) {
        json_free(c->config);
        c->config = completed;
    }
    return code;
}

/* The numbers of a map are the config's. */
static ckpt_code find_own_map(ckpt_checkpoint *c, ckpt_error *err)
{
    const ckpt_code code = checkpoint_find_own_map(c, err);

    return code == CKPT_E_FORMAT && c->config != NULL && c->options.map_file == NULL
               ? checkpoint_fail_config(c, code, err)
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
    if (c->family != NULL && !c->is_partial && (code = checkpoint_check_family(c, err)) != CKPT_OK)
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
