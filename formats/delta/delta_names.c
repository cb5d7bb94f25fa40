/* Names of the files beside the weights. */
#include "delta_names.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/hf.h"
#include "formats/safetensors.h"
#include "libckpt/table.h"
#include "libckpt/text.h"

static const char config_name[] = "config.json";

/* ---- one name ---- */

/* The first `size` bytes of a name end in the suffix of weights. */
static int is_weights(const char *name, size_t size)
{
    const size_t suffix = sizeof SAFETENSORS_SUFFIX - 1;

    return size > suffix && memcmp(name + size - suffix, SAFETENSORS_SUFFIX, suffix) == 0;
}

int delta_name_is_beside(const char *name)
{
    char first[NAME_MAX + 1] = "";
    const size_t length = strcspn(name, "/");

    if (!text_is_below(name))
        return 0;
    for (const char *slash = name + length; ; slash += 1 + strcspn(slash + 1, "/")) {
        if (is_weights(name, (size_t)(slash - name)))
            return 0;
        if (*slash == '\0')
            break;
    }
    if (length >= sizeof first)
        return 1;                           /* too long, which delta_name_check tells */
    memcpy(first, name, length);
    return checkpoint_is_carried(first) || strcmp(name, config_name) == 0;
}

ckpt_code delta_name_check(const char *subject, const char *name, ckpt_error *err)
{
    size_t depth = 0;

    for (const char *at = name; at != NULL; depth++) {
        const size_t length = strcspn(at, "/");

        if (length > NAME_MAX)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s': the name of a file beside the weights has "
                             "a part of %zu bytes, expected at most %d: '%s'", subject, length,
                             NAME_MAX, name);
        at = at[length] == '\0' ? NULL : at + length + 1;
    }
    if (depth > FILE_TREE_DEPTH_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': a file beside the weights is nested in %zu "
                         "folders, expected fewer than %d: '%s'", subject, depth - 1,
                         FILE_TREE_DEPTH_MAX, name);
    return CKPT_OK;
}

/* ---- names together ---- */

static ckpt_code add_name(table *known, const char *name, ckpt_error *err)
{
    return table_add(known, name, 0) == TABLE_NO_MEMORY
               ? ckpt_fail_memory(err, "a list of files", known->count) : CKPT_OK;
}

/* Refuse a name that is the folder of another one. `buffer` has room for the longest. */
static ckpt_code check_folders(const table *known, const char *name, const char *subjects[2],
                               char *buffer, ckpt_error *err)
{
    uint64_t unused;

    for (const char *slash = strchr(name, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        const size_t length = (size_t)(slash - name);

        memcpy(buffer, name, length);
        buffer[length] = '\0';
        if (table_find(known, buffer, &unused))
            return ckpt_fail(err, CKPT_E_USAGE, "'%s' on '%s': '%s' would be both a file and the "
                             "folder of '%s': a delta cannot make one of the other; copy the new "
                             "checkpoint as a whole, or rename one of them", subjects[0],
                             subjects[1], buffer, name);
    }
    return CKPT_OK;
}

/* In the order of names, so that the same one is told each time. */
static ckpt_code check_apart(const table *known, const char *subjects[2], ckpt_error *err)
{
    const char **keys = calloc(known->count + 1, sizeof *keys);
    char *buffer;
    size_t longest = 0;
    ckpt_code code = CKPT_OK;

    if (keys == NULL)
        return ckpt_fail_memory(err, "a list of files", known->count);
    table_keys(known, keys);
    if (known->count > 1)
        qsort(keys, known->count, sizeof *keys, text_order);
    for (size_t i = 0; i < known->count; i++)
        if (strlen(keys[i]) > longest)
            longest = strlen(keys[i]);
    if ((buffer = malloc(longest + 1)) == NULL)
        code = ckpt_fail_memory(err, "a path", longest);
    for (size_t i = 0; i < known->count && code == CKPT_OK; i++)
        code = check_folders(known, keys[i], subjects, buffer, err);
    free(buffer);
    free(keys);
    return code;
}

ckpt_code delta_names_check(const ckpt_delta *d, ckpt_error *err)
{
    const char *subjects[2] = { d->path, d->path };
    table known;
    ckpt_code code = CKPT_OK;

    table_init(&known);
    for (size_t i = 0; i < d->file_count && code == CKPT_OK; i++) {
        const delta_file *f = &d->files[i];

        if ((code = delta_name_check(d->path, f->name, err)) != CKPT_OK ||
            (f->carried != NULL &&
             (code = delta_name_check(d->path, f->carried, err)) != CKPT_OK))
            break;
        if (table_find(&known, f->name, &(uint64_t){ 0 }))
            code = ckpt_fail(err, CKPT_E_FORMAT, "'%s': %s has the file '%s' twice", d->path,
                             DELTA_SIDE_FILE, f->name);
        else
            code = add_name(&known, f->name, err);
    }
    if (code == CKPT_OK)
        code = check_apart(&known, subjects, err);
    table_release(&known);
    return code;
}

static ckpt_code add_list(table *known, const file_list *names, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < names->count && code == CKPT_OK; i++)
        code = add_name(known, names->names[i], err);
    return code;
}

ckpt_code delta_names_check_lists(const char *subject, const file_list *names, const char *other,
                                  const file_list *others, ckpt_error *err)
{
    const char *subjects[2] = { subject, other };
    table known;
    ckpt_code code;

    table_init(&known);
    if ((code = add_list(&known, names, err)) == CKPT_OK &&
        (code = add_list(&known, others, err)) == CKPT_OK)
        code = check_apart(&known, subjects, err);
    table_release(&known);
    return code;
}

/* ---- names in a folder ---- */

/* What lies in the folder may be no part of the checkpoint: an empty folder, for example. In place,
 * a link to a folder is refused, since the files would be written elsewhere. */
static ckpt_code check_place(const ckpt_delta *d, const char *name, const char *directory,
                             int is_in_place, ckpt_error *err)
{
    char *path = file_join(directory, name);
    const size_t start = path == NULL ? 0 : strlen(path) - strlen(name);
    ckpt_code code = CKPT_OK;
    struct stat status;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(name));
    if (file_is_directory(path))
        code = ckpt_fail(err, CKPT_E_USAGE, "'%s' has the file '%s', but '%s' is a folder", d->path,
                         name, path);
    for (char *slash = strchr(path + start, '/'); slash != NULL && code == CKPT_OK;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if ((is_in_place ? lstat(path, &status) : stat(path, &status)) == 0 &&
            !S_ISDIR(status.st_mode))
            code = ckpt_fail(err, CKPT_E_USAGE, "'%s' has the file '%s', but '%s' is not a folder",
                             d->path, name, path);
        *slash = '/';
    }
    free(path);
    return code;
}

/* With the names of the temporary files that the whole path may have while it is written. */
static ckpt_code check_length(const char *target, const char *name, ckpt_error *err)
{
    static const char more[] = ".partial/.12345678.tmp";

    if (strlen(target) + sizeof more + strlen(name) > PATH_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "'%s': the path of the file '%s' in it is longer than "
                         "%d bytes", target, name, PATH_MAX);
    return CKPT_OK;
}

ckpt_code delta_names_check_base(const delta_chain *chain, const ckpt_checkpoint *base,
                                 const char *target, ckpt_error *err)
{
    const char *directory = folder_path(base->place.folder);
    const int is_in_place = target == directory;
    const char *subjects[2] = { "", chain->base };
    table known;
    ckpt_code code;

    table_init(&known);
    code = add_list(&known, &base->extras, err);
    for (size_t i = 0; i < base->store->file_count && code == CKPT_OK; i++)
        code = add_name(&known, base->store->files[i].name, err);
    for (size_t d = 0; d < chain->count && code == CKPT_OK; d++) {
        const ckpt_delta *delta = chain->deltas[d];

        for (size_t i = 0; i < delta->file_count && code == CKPT_OK; i++) {
            const char *name = delta->files[i].name;

            if ((code = check_place(delta, name, directory, is_in_place, err)) == CKPT_OK &&
                (target == NULL || (code = check_length(target, name, err)) == CKPT_OK))
                code = add_name(&known, name, err);
        }
        subjects[0] = delta->path;
        if (code == CKPT_OK)
            code = check_apart(&known, subjects, err);
    }
    table_release(&known);
    return code;
}
