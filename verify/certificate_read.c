/* The facts of a checkpoint. */
#include "certificate_read.h"

#include <stdlib.h>
#include <string.h>

#include "certificate_files.h"
#include "companions.h"
#include "libckpt/checkpoint.h"
#include "libckpt/text.h"

/* ---- facts from opening ---- */

/* The last component of a path: the rest of it may be private. */
static char *label_of(const char *path)
{
    size_t end = strlen(path);
    size_t begin;
    const char *name;

    while (end > 1 && path[end - 1] == '/')
        end--;
    begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    name = path + begin;
    if (end == begin || (name[0] == '.' && (end - begin == 1 || (end - begin == 2 &&
                                                                 name[1] == '.'))))
        return strdup("checkpoint");
    return strndup(name, end - begin);
}

static int compare_encodings(const void *left, const void *right)
{
    return strcmp(((const certificate_encoding *)left)->name,
                  ((const certificate_encoding *)right)->name);
}

/* Find the entry of an encoding, or add it. Linear, as a checkpoint has few encodings. */
static certificate_encoding *find_encoding(certificate_checkpoint *out, const char *name)
{
    certificate_encoding *all;

    for (size_t i = 0; i < out->encoding_count; i++)
        if (strcmp(out->encodings[i].name, name) == 0)
            return &out->encodings[i];
    all = realloc(out->encodings, (out->encoding_count + 1) * sizeof *all);
    if (all == NULL)
        return NULL;
    out->encodings = all;
    all[out->encoding_count] = (certificate_encoding){ .name = strdup(name) };
    return all[out->encoding_count].name == NULL ? NULL : &all[out->encoding_count++];
}

static ckpt_code count_encodings(certificate_checkpoint *out, ckpt_error *err)
{
    for (size_t i = 0; i < ckpt_catalog_count(out->tensors); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(out->tensors, i);
        certificate_encoding *encoding;
        char name[64];

        ckpt_tensor_encoding(t, name, sizeof name);
        if ((encoding = find_encoding(out, name)) == NULL)
            return ckpt_fail_memory(err, "encodings", out->encoding_count);
        encoding->tensor_count++;
        encoding->bytes += ckpt_tensor_bytes(t);
    }
    if (out->encoding_count > 0)
        qsort(out->encodings, out->encoding_count, sizeof *out->encodings, compare_encodings);
    return CKPT_OK;
}

static ckpt_code take_opened(ckpt_checkpoint *checkpoint, certificate_checkpoint *out,
                             ckpt_error *err)
{
    const ckpt_catalog *stored = ckpt_source_catalog(ckpt_stored(checkpoint));
    const json_value *config = checkpoint_config(checkpoint);

    out->path = checkpoint_path(checkpoint);
    out->opened = checkpoint;
    out->layout = ckpt_layout_name(checkpoint);
    out->family = ckpt_family_name(checkpoint);
    out->names = ckpt_names_style(checkpoint);
    out->notes = checkpoint_notes(checkpoint);
    out->folder = checkpoint_folder(checkpoint);
    out->tensors = ckpt_source_catalog(ckpt_logical(checkpoint));
    out->stored_count = ckpt_catalog_count(stored);
    for (size_t i = 0; i < out->stored_count; i++)
        out->stored_bytes += ckpt_tensor_bytes(ckpt_catalog_at(stored, i));
    out->ledger = checkpoint_ledger(checkpoint);
    if ((out->label = label_of(out->path)) == NULL)
        return ckpt_fail_memory(err, "a label", strlen(out->path));
    out->has_config = config != NULL;
    out->config_json = config;
    if (config != NULL) {
        const ckpt_code code = config_meaning_read(config, &out->config, err);

        if (code != CKPT_OK)
            return code;
    }
    return count_encodings(out, err);
}

/* ---- the one pass ---- */

/* A sink that digests every tile and passes it to the watch. */
typedef struct {
    ckpt_sink base;
    ckpt_digest *digest;
    const ckpt_catalog *catalog;
    ckpt_sink *watch;
    certificate_hashing *hashing;
} pass_sink;

static ckpt_code pass_put(ckpt_sink *self, const source_range *range, const ckpt_tile *tile,
                          arena *scratch, ckpt_error *err)
{
    pass_sink *s = (pass_sink *)self;
    const size_t mark = arena_mark(scratch);
    ckpt_code code = digest_add(s->digest, range, tile, scratch, err);

    arena_rewind(scratch, mark);
    for (int part = 0; part < CKPT_PART_COUNT; part++)
        certificate_hashing_keep_pace(s->hashing, tile->part_bytes[part]);
    if (code == CKPT_OK && s->watch != NULL)
        code = s->watch->ops->put(s->watch, range, tile, scratch, err);
    return code;
}

static uint64_t pass_need(const ckpt_sink *self, size_t tensor, uint64_t row_count)
{
    const pass_sink *s = (const pass_sink *)self;
    const uint64_t watch = s->watch == NULL || s->watch->ops->need == NULL
                               ? 0 : s->watch->ops->need(s->watch, tensor, row_count);

    return digest_need(ckpt_catalog_at(s->catalog, tensor)) + watch;
}

static ckpt_code pass_done(ckpt_sink *self, size_t tensor, ckpt_error *err)
{
    pass_sink *s = (pass_sink *)self;

    return s->watch == NULL || s->watch->ops->tensor_done == NULL
               ? CKPT_OK : s->watch->ops->tensor_done(s->watch, tensor, err);
}

static ckpt_code digest_values(ckpt_checkpoint *checkpoint,
                               const certificate_read_options *options,
                               certificate_hashing *hashing, ckpt_error *err)
{
    certificate_checkpoint *out = hashing->of;
    static const sink_ops ops = { NULL, pass_put, pass_need, pass_done };
    ckpt_source *values = options->values == NULL ? ckpt_logical(checkpoint) : options->values;
    pass_sink sink = { { &ops }, digest_create(out->tensors), out->tensors, options->watch,
                       hashing };
    ckpt_run_options run = options->run;
    ckpt_code code;

    if ((out->digest = sink.digest) == NULL)
        return ckpt_fail_memory(err, "digests", ckpt_catalog_count(out->tensors));
    run.fixed_bytes += ckpt_checkpoint_bytes(checkpoint) +
                       hashing->thread_count * (uint64_t)SHA256_PIECE_BYTES;
    code = hashing->window_bytes == 0 ? ckpt_copy(values, &sink.base, &run, err)
                                      : ckpt_copy_together(values, &sink.base, &run, err);
    if (code != CKPT_OK ||
        (code = ckpt_digest_root(out->digest, 0, out->root, err)) != CKPT_OK)
        return code;
    return ckpt_digest_root(out->digest, 1, out->main_root, err);
}

ckpt_code certificate_read(ckpt_checkpoint *checkpoint, const certificate_read_options *options,
                           certificate_checkpoint *out, ckpt_error *err)
{
    certificate_hashing hashing = { .of = out, .run = options->run,
                                    .path = checkpoint_path(checkpoint),
                                    .without_weights = options->structure_only ||
                                                       options->values_only };
    ckpt_error ended;
    ckpt_code code;
    ckpt_code hashed;
    int touched;

    if ((code = take_opened(checkpoint, out, err)) != CKPT_OK ||
        (code = certificate_list_files(checkpoint, options, out, err)) != CKPT_OK ||
        (code = certificate_hashing_begin(&hashing, err)) != CKPT_OK)
        return code;
    if (!options->structure_only)
        code = digest_values(checkpoint, options, &hashing, err);
    hashed = certificate_hashing_end(&hashing, code != CKPT_OK, &ended);
    if (code == CKPT_OK && hashed != CKPT_OK) {
        code = hashed;
        *err = ended;
    }
    if (code == CKPT_OK)
        code = store_check_unchanged(checkpoint_store(checkpoint), &touched, err);
    return code == CKPT_OK ? checkpoint_check_unchanged(checkpoint, err) : code;
}

ckpt_code certificate_read_companions(const ckpt_folder *folder, certificate_checkpoint *out,
                                      ckpt_error *err)
{
    const certificate_read_options options = { .structure_only = 1 };
    certificate_hashing hashing = { .of = out, .run = { .thread_count = 1 } };
    size_t kept = 0;
    ckpt_code code;

    out->folder = folder;
    if (folder == NULL)
        return CKPT_OK;
    if ((code = certificate_list_folder(folder, &options, out, err)) != CKPT_OK)
        return code;
    for (size_t i = 0; i < out->file_count; i++) {
        if (companion_is_role(out->files[i].role))
            out->files[kept++] = out->files[i];
        else
            free(out->files[i].name);
    }
    out->file_count = kept;
    code = certificate_hashing_begin(&hashing, err);
    return code == CKPT_OK ? certificate_hashing_end(&hashing, 0, err) : code;
}

ckpt_code certificate_read_folder(const char *path, const ckpt_folder *folder,
                                  const certificate_read_options *options,
                                  certificate_checkpoint *out, ckpt_error *err)
{
    certificate_hashing hashing = { .of = out, .run = options->run, .path = path };
    ckpt_code code;

    out->path = path;
    if ((out->label = label_of(path)) == NULL)
        return ckpt_fail_memory(err, "a label", strlen(path));
    out->folder = folder;
    if ((code = certificate_list_folder(folder, options, out, err)) == CKPT_OK &&
        (code = certificate_hashing_begin(&hashing, err)) == CKPT_OK)
        code = certificate_hashing_end(&hashing, 0, err);
    out->folder = NULL;
    return code;
}
