/* What an open checkpoint is asked, and its end. */
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "notes.h"
#include "libckpt/packed.h"
#include "tokenizer_files.h"

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

const char *checkpoint_config_name(const ckpt_checkpoint *c)
{
    return c->config_name == NULL ? "config.json" : c->config_name;
}

ckpt_code checkpoint_fail_config(const ckpt_checkpoint *c, ckpt_code code, ckpt_error *err)
{
    if (err == NULL)
        return code;
    return c->config_name == NULL ? ckpt_fail(err, code, "'%s': %s", c->place.path, err->text)
                                  : ckpt_fail(err, code, "%s: %s", c->config_name, err->text);
}

const char *checkpoint_path_of(const ckpt_checkpoint *c, const ckpt_tensor *t)
{
    const store_file *f = &c->store->files[t->file];

    return f->file != NULL ? file_path(f->file) : f->name;
}
