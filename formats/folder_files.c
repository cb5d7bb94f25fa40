/*
 * folder_files.c: reads the files beside the tensors for all formats: config.json, and the list of
 * files that a conversion copies unchanged.
 */
#include <stdio.h>
#include <string.h>

#include "format.h"
#include "given_config.h"
#include "hf.h"
#include "libckpt/text.h"

/* Parse a file of the folder, if it is there; its text is kept in *bytes unless that is NULL. */
static ckpt_code read_document(const ckpt_checkpoint *c, const char *name, char **bytes,
                               json_document **out, ckpt_error *err)
{
    folder_text text;
    ckpt_code code;

    if (!folder_has(c->place.folder, name))
        return CKPT_OK;
    code = folder_read_all(c->place.folder, name, CONFIG_BYTES_MAX, &text, err);
    if (code == CKPT_OK)
        code = json_parse(text.bytes, text.size, text.path, out, err);
    if (code == CKPT_OK && !json_is_object(json_root(*out)))
        code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not an object", text.path);
    if (bytes != NULL) {
        *bytes = text.bytes;
        text.bytes = NULL;
    }
    folder_text_release(&text);
    return code;
}

ckpt_code checkpoint_take_config(ckpt_checkpoint *out, ckpt_error *err)
{
    const char *given = out->options.config;
    size_t size;
    ckpt_code code;

    if (given == NULL)
        return CKPT_OK;
    if (out->config != NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' has a config.json: leave out --config",
                         out->place.path);
    if (asprintf(&out->config_name, "'%s'", given) < 0) {
        out->config_name = NULL;
        return ckpt_fail_memory(err, "a path", strlen(given));
    }
    if ((code = given_config_read(given, &out->config_text, &size, err)) != CKPT_OK ||
        (code = json_parse(out->config_text, size, given, &out->config,
                           err)) != CKPT_OK)
        return code;
    return json_is_object(json_root(out->config))
               ? CKPT_OK : ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not an object", given);
}

ckpt_code checkpoint_read_config(ckpt_checkpoint *out, ckpt_error *err)
{
    ckpt_code code = read_document(out, "config.json", &out->config_text, &out->config, err);

    if (code == CKPT_OK)
        code = checkpoint_take_config(out, err);
    return code == CKPT_OK
               ? read_document(out, CONFIG_MODELOPT_FILE, NULL, &out->modelopt, err)
               : code;
}

int checkpoint_is_carried(const char *name)
{
    static const char *const own[] = { HF_INDEX_FILE, "config.json", SIDE_DATA_FILE,
                                       "ckpt-manifest.json", "ckpt-manifest.json.zst", NULL };

    for (size_t i = 0; own[i] != NULL; i++)
        if (strcmp(name, own[i]) == 0)
            return 0;
    return 1;
}

void checkpoint_mix_file(const ckpt_folder *folder, const char *name, hash128 *sum)
{
    ckpt_file *file = NULL;

    hash128_mix(sum, name, strlen(name) + 1);
    if (folder_open_file(folder, name, &file, NULL) == CKPT_OK) {
        const uint64_t numbers[] = { file_size(file), file_identity_of(file)->version };

        hash128_mix(sum, numbers, sizeof numbers);
    }
    file_close(file, NULL);
}

void checkpoint_mix_beside(const ckpt_checkpoint *c, hash128 *sum)
{
    if (c->config_text != NULL)
        hash128_mix(sum, c->config_text, strlen(c->config_text));
    for (size_t i = 0; i < c->extras.count; i++)
        checkpoint_mix_file(c->place.folder, c->extras.names[i], sum);
}

/* Names of weights in the folder itself that are no files. */
typedef struct {
    const ckpt_folder *folder;
    const char *ending;
    const file_list *files;
    ckpt_code code;
    ckpt_error *err;
} others_finder;

static int look_at_entry(void *context, const char *name)
{
    others_finder *f = context;
    ckpt_file *file = NULL;

    if (name[0] == '.' || !text_ends_with(name, f->ending))
        return 0;
    for (size_t i = 0; i < f->files->count; i++)
        if (strcmp(f->files->names[i], name) == 0)
            return 0;
    f->code = folder_open_file(f->folder, name, &file, f->err);
    file_close(file, NULL);
    return f->code != CKPT_OK;
}

/* Refuse a folder, a pipe or a device with the name of a file of weights. */
static ckpt_code check_entries(const ckpt_checkpoint *c, const file_list *files, ckpt_error *err)
{
    others_finder finder = { c->place.folder, c->format->ending, files, CKPT_OK, err };
    const ckpt_code code = folder_list(c->place.folder, look_at_entry, &finder, err);

    return code == CKPT_OK ? finder.code : code;
}

ckpt_code checkpoint_take_extras(ckpt_checkpoint *out,
                                 file_role (*role_of)(void *context, const char *name),
                                 void *context, ckpt_error *err)
{
    file_list list;
    ckpt_code code = folder_list_tree(out->place.folder, &list, err);

    if (code == CKPT_OK && out->format->ending != NULL && !out->has_index) /* which names them */
        code = check_entries(out, &list, err);
    for (size_t i = 0; i < list.count && code == CKPT_OK; i++) {
        const file_role role = role_of(context, list.names[i]);

        if (role == FILE_UNREAD)
            code = file_list_add(&out->unread, list.names[i], err);
        else if (role == FILE_CARRIED && checkpoint_is_carried(list.names[i]))
            code = file_list_add(&out->extras, list.names[i], err);
    }
    file_list_free(&list);
    return code;
}
