/* Which deltas, in which order. */
#include "delta_chain.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/hf.h"
#include "libckpt/array.h"

static const char *const prefixes[] = { "weight_v", "delta-" };

/* ---- a folder of versions ---- */

typedef struct {
    uint64_t number;
    char *name;
} version_entry;

typedef struct {
    version_entry *entries;
    size_t count;
    int failed;
} version_list;

/* The number of "weight_v000012" or "delta-00000012"; 0 for any other name. */
static int version_number(const char *name, uint64_t *out)
{
    const char *digits = NULL;
    uint64_t number = 0;

    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            digits = name + strlen(prefixes[i]);
    if (digits == NULL || *digits == '\0' || strlen(digits) > 18 ||
        strspn(digits, "0123456789") != strlen(digits))
        return 0;
    for (; *digits != '\0'; digits++)
        number = number * 10 + (uint64_t)(*digits - '0');
    *out = number;
    return 1;
}

static int visit_version(void *context, const char *name)
{
    version_list *list = context;
    version_entry *more;
    uint64_t number;

    if (!version_number(name, &number))
        return 0;
    more = array_room(list->entries, list->count, sizeof *more, "a list of versions", NULL);
    if (more == NULL) {
        list->failed = 1;
        return 1;
    }
    list->entries = more;
    more[list->count] = (version_entry){ number, strdup(name) };
    list->failed |= more[list->count++].name == NULL;
    return list->failed;
}

static int compare_versions(const void *left, const void *right)
{
    const version_entry *a = left;
    const version_entry *b = right;

    return (a->number > b->number) - (a->number < b->number);
}

static ckpt_code add_versions(const char *path, version_list *list, file_list *out,
                              ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    qsort(list->entries, list->count, sizeof *list->entries, compare_versions);
    for (size_t i = 0; i < list->count && code == CKPT_OK; i++) {
        char *full;

        if (i > 0 && list->entries[i].number != list->entries[i - 1].number + 1)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' has version %" PRIu64 " and then %" PRIu64
                             ": one between them is missing", path, list->entries[i - 1].number,
                             list->entries[i].number);
        if ((full = file_join(path, list->entries[i].name)) == NULL)
            return ckpt_fail_memory(err, "a path", strlen(path));
        code = file_list_add(out, full, err);
        free(full);
    }
    return code;
}

/* Append a version, or all versions of a folder. */
static ckpt_code add_path(const char *path, file_list *out, ckpt_error *err)
{
    version_list list = { NULL, 0, 0 };
    ckpt_folder *folder = NULL;
    char *index = file_join(path, HF_INDEX_FILE);
    ckpt_code code = CKPT_OK;

    if (index == NULL)
        return ckpt_fail_memory(err, "a path", strlen(path));
    if (file_is_directory(path) && !file_exists(index) &&
        (code = folder_open_local(path, &folder, err)) == CKPT_OK)
        code = folder_list(folder, visit_version, &list, err);
    if (code == CKPT_OK && list.failed)
        code = ckpt_fail_memory(err, "a list of versions", list.count);
    if (code == CKPT_OK)
        code = list.count == 0 ? file_list_add(out, path, err)
                               : add_versions(path, &list, out, err);
    for (size_t i = 0; i < list.count; i++)
        free(list.entries[i].name);
    free(list.entries);
    folder_close(folder);
    free(index);
    return code;
}

/* ---- the chain ---- */

static ckpt_code check_link(const ckpt_delta *before, const ckpt_delta *after, ckpt_error *err)
{
    if (before->result.all[0] != '\0' && after->base.all[0] != '\0') {
        if (strcmp(before->result.all, after->base.all) == 0)
            return CKPT_OK;
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' does not follow '%s': it was made from root %s, "
                         "and that one makes %s", after->path, before->path, after->base.all,
                         before->result.all);
    }
    if (strcmp(before->version, after->base_version) == 0)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE, "'%s' does not follow '%s': its base is version %s, "
                     "expected %s", after->path, before->path, after->base_version,
                     before->version);
}

/* 1 for a complete checkpoint, which replaces everything before it. */
static int is_whole_version(const char *path)
{
    folder_place place;
    int found = 0;

    if (folder_open_place(path, &place, NULL) == CKPT_OK)
        found = place.name == NULL && folder_has(place.folder, HF_INDEX_FILE) &&
                !delta_detect(&place);
    folder_place_release(&place);
    return found;
}

static ckpt_code open_all(delta_chain *chain, ckpt_error *err)
{
    size_t begin = 0;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < chain->paths.count; i++) {
        if (chain->base != NULL && is_whole_version(chain->paths.names[i])) {
            chain->base = chain->paths.names[i];
            begin = i + 1;
        }
    }
    chain->deltas = calloc(chain->paths.count + 1, sizeof *chain->deltas);
    if (chain->deltas == NULL)
        return ckpt_fail_memory(err, "a chain of deltas", chain->paths.count);
    for (size_t i = begin; i < chain->paths.count && code == CKPT_OK; i++) {
        code = delta_open_unproven(chain->paths.names[i], &chain->deltas[chain->count], err);
        if (code == CKPT_OK && chain->count > 0 && chain->deltas[chain->count]->is_structural)
            code = ckpt_fail(err, CKPT_E_USAGE, "'%s' adds or removes tensors: it must be the "
                             "first delta; apply those before it on their own",
                             chain->paths.names[i]);
        if (code == CKPT_OK && chain->count > 0)
            code = check_link(chain->deltas[chain->count - 1], chain->deltas[chain->count], err);
        chain->count += chain->deltas[chain->count] != NULL;
    }
    if (code == CKPT_OK && chain->count == 0)
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' is a whole checkpoint, not a delta: there is "
                         "nothing to apply", chain->base);
    return code;
}

ckpt_code delta_chain_open_unproven(const char *base, char *const *paths, size_t count,
                                    delta_chain *out, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    *out = (delta_chain){ .base = base };
    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        code = add_path(paths[i], &out->paths, err);
    return code == CKPT_OK ? open_all(out, err) : code;
}

ckpt_code delta_chain_open(const char *base, char *const *paths, size_t count, delta_chain *out,
                           ckpt_error *err)
{
    ckpt_code code = delta_chain_open_unproven(base, paths, count, out, err);

    for (size_t i = 0; i < out->count && code == CKPT_OK; i++)
        code = delta_check_data(out->deltas[i], NULL, NULL, err);
    return code;
}

void delta_chain_release(delta_chain *chain)
{
    for (size_t i = 0; i < chain->count; i++)
        delta_close(chain->deltas[i]);
    free(chain->deltas);
    file_list_free(&chain->paths);
}
