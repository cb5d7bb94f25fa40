/* hub_select.c: matches names and patterns of the command line against a listing. */
#include "hub_select.h"

static int any_matches(const cli_list *list, const char *path)
{
    for (size_t i = 0; i < list->count; i++)
        if (hub_glob(list->items[i], path))
            return 1;
    return 0;
}

/* A name is that file if there is one, else a pattern. */
static ckpt_code select_name(hub *h, hub_listing *listing, const char *name, ckpt_error *err)
{
    const hub_file *exact = hub_listing_find(listing, name);
    size_t count = 0;

    for (size_t i = 0; i < listing->count; i++)
        if (exact != NULL ? &listing->files[i] == exact : hub_glob(name, listing->files[i].path)) {
            listing->files[i].is_selected = 1;
            count++;
        }
    if (count > 0)
        return CKPT_OK;
    return hub_fail(HUB_NOT_FOUND, err, "'%s' has no file '%s'%s", h->options.repo, name,
                    strchr(name, '.') == NULL ? "; the folder to write to is --local-dir" : "");
}

ckpt_code hub_select(hub *h, hub_listing *listing, const hub_selection *selection,
                     ckpt_error *err)
{
    const char *pattern = selection->include->count == 1 ? selection->include->items[0] : NULL;
    size_t count = 0;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < listing->count; i++) {
        hub_file *file = &listing->files[i];

        file->is_selected =
            selection->name_count == 0 &&
            (selection->include->count == 0 || any_matches(selection->include, file->path)) &&
            !any_matches(selection->exclude, file->path);
    }
    for (size_t i = 0; i < selection->name_count && code == CKPT_OK; i++)
        code = select_name(h, listing, selection->names[i], err);
    for (size_t i = 0; i < listing->count; i++)
        count += (size_t)listing->files[i].is_selected;
    if (code == CKPT_OK && count == 0)
        code = hub_fail(HUB_NOT_FOUND, err, "no file of '%s' matches%s%s%s",
                        h->options.repo, pattern == NULL ? "" : " '",
                        pattern == NULL ? "" : pattern, pattern == NULL ? "" : "'");
    return code;
}

size_t hub_unmatched(const hub_listing *listing, const cli_list *patterns, const char **out)
{
    size_t count = 0;

    for (size_t i = 0; i < patterns->count; i++) {
        size_t f = 0;

        while (f < listing->count && !hub_glob(patterns->items[i], listing->files[f].path))
            f++;
        if (f == listing->count)
            out[count++] = patterns->items[i];
    }
    return count;
}
