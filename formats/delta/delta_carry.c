/* Files that changed, carried whole. */
#include "delta_carry.h"

#include <stdlib.h>
#include <string.h>

#include "delta_names.h"
#include "formats/hf.h"
#include "libckpt/sha256.h"

static const char config_name[] = "config.json";

typedef struct {
    const delta_target *before;
    const delta_target *after;
    const char *directory;
    delta_carried *out;
} carry_job;

static int has_extra(const ckpt_checkpoint *c, const char *name)
{
    for (size_t i = 0; i < c->extras.count; i++)
        if (strcmp(c->extras.names[i], name) == 0)
            return 1;
    return 0;
}

/* "carried/NAME": malloc'd. */
static char *carried_name(const char *name)
{
    const size_t prefix = sizeof DELTA_CARRIED_FOLDER - 1;
    char *text = malloc(prefix + strlen(name) + 1);

    if (text != NULL) {
        memcpy(text, DELTA_CARRIED_FOLDER, prefix);
        memcpy(text + prefix, name, strlen(name) + 1);
    }
    return text;
}

ckpt_code delta_carried_begin(delta_carried *out, size_t most, ckpt_error *err)
{
    arena_init(&out->memory);
    out->count = 0;
    if ((out->files = calloc(most + 1, sizeof *out->files)) == NULL)
        return ckpt_fail_memory(err, "a list of files", most);
    return CKPT_OK;
}

static ckpt_code add_entry(delta_carried *out, const char *name, const char *carried,
                           const char *hex, ckpt_error *err)
{
    delta_file *f = &out->files[out->count];

    f->name = arena_strdup(&out->memory, name, strlen(name));
    f->carried = carried == NULL ? NULL : arena_strdup(&out->memory, carried, strlen(carried));
    if (f->name == NULL || (carried != NULL && f->carried == NULL))
        return ckpt_fail_memory(err, "a list of files", strlen(name));
    if (hex != NULL)
        memcpy(f->sha256, hex, sizeof f->sha256);
    out->count++;
    return CKPT_OK;
}

ckpt_code delta_carried_remove(delta_carried *out, const char *name, ckpt_error *err)
{
    return add_entry(out, name, NULL, NULL, err);
}

ckpt_code delta_carried_put(delta_carried *out, const char *directory, const char *name,
                            const delta_content_of *content, ckpt_error *err)
{
    char *carried = carried_name(name);
    char *to = carried == NULL ? NULL : file_join(directory, carried);
    char hex[SHA256_HEX];
    ckpt_code code;

    if (to == NULL)
        code = ckpt_fail_memory(err, "a path", strlen(name));
    else if ((code = delta_name_check(directory, carried, err)) == CKPT_OK &&
             (code = file_make_parents_below(directory, carried, err)) == CKPT_OK)
        code = content->text != NULL
                   ? file_write_all(to, content->text, strlen(content->text), err)
                   : folder_copy(content->folder, content->name, to, err);
    if (code == CKPT_OK && (code = sha256_file(to, hex, err)) == CKPT_OK)
        code = add_entry(out, name, carried, hex, err);
    free(to);
    free(carried);
    return code;
}

/* Carry a file with the content `text`, or with NULL that of the new checkpoint's file. */
static ckpt_code put_file(carry_job *job, const char *name, const char *text, ckpt_error *err)
{
    const delta_content_of content = { text, job->after->source->place.folder, name };

    return delta_carried_put(job->out, job->directory, name, &content, err);
}

static ckpt_code hash_in(const ckpt_checkpoint *c, const char *name, char hex[SHA256_HEX],
                         ckpt_error *err)
{
    ckpt_file *file = NULL;
    ckpt_code code = folder_open_file(c->place.folder, name, &file, err);

    if (code == CKPT_OK)
        code = sha256_of(file, NULL, NULL, hex, err);
    file_close(file, NULL);
    return code;
}

static ckpt_code carry_extra(carry_job *job, const char *name, ckpt_error *err)
{
    char old_hex[SHA256_HEX];
    char new_hex[SHA256_HEX];
    ckpt_code code;

    if (has_extra(job->before->source, name)) {
        if ((code = hash_in(job->before->source, name, old_hex, err)) != CKPT_OK ||
            (code = hash_in(job->after->source, name, new_hex, err)) != CKPT_OK ||
            strcmp(old_hex, new_hex) == 0)
            return code;
    }
    return put_file(job, name, NULL, err);
}

static ckpt_code carry_config(carry_job *job, ckpt_error *err)
{
    const char *before = job->before->config;
    const char *after = job->after->config;

    if (after != NULL)
        return before != NULL && strcmp(before, after) == 0
                   ? CKPT_OK : put_file(job, config_name, after, err);
    return before == NULL || job->after->plan != NULL
               ? CKPT_OK : delta_carried_remove(job->out, config_name, err);
}

ckpt_code delta_carry(const delta_target *before, const delta_target *after,
                      const char *directory, delta_carried *out, ckpt_error *err)
{
    carry_job job = { before, after, directory, out };
    const file_list *old = &before->source->extras;
    const file_list *new = &after->source->extras;
    ckpt_code code;

    if ((code = delta_carried_begin(out, old->count + new->count + 1, err)) == CKPT_OK)
        code = carry_config(&job, err);
    for (size_t i = 0; i < new->count && code == CKPT_OK; i++)
        code = carry_extra(&job, new->names[i], err);
    for (size_t i = 0; i < old->count && code == CKPT_OK; i++)
        if (after->plan == NULL && before->plan == NULL &&
            !has_extra(after->source, old->names[i]))
            code = delta_carried_remove(out, old->names[i], err);
    return code;
}

void delta_carried_release(delta_carried *carried)
{
    if (carried->files != NULL)
        arena_release(&carried->memory);
    free(carried->files);
}

ckpt_code delta_carried_name(const char *name, file_list *out, ckpt_error *err)
{
    char *carried = carried_name(name);
    ckpt_code code;

    if (carried == NULL)
        return ckpt_fail_memory(err, "a path", strlen(name));
    code = file_list_add(out, carried, err);
    free(carried);
    return code;
}

ckpt_code delta_carry_names(const delta_target *after, file_list *out, ckpt_error *err)
{
    const file_list *extras = &after->source->extras;
    ckpt_code code = delta_carried_name(config_name, out, err);

    for (size_t i = 0; i < extras->count && code == CKPT_OK; i++)
        code = delta_carried_name(extras->names[i], out, err);
    return code;
}
