/* hub_select.c: matches names and patterns of the command line against a listing. */
#include "hub_select.h"

#include <stdio.h>

static int copy_text(char *to, size_t room, const char *from, size_t size)
{
    if (size >= room)
        return 0;
    memcpy(to, from, size);
    to[size] = '\0';
    return 1;
}

/* The repository at the beginning of `text`, then "@REVISION" and "/PATH" if they are there. */
static const char *parse_parts(const char *text, hub_name *out)
{
    const char *end = strchr(text, '/');

    end = end == NULL ? text + strcspn(text, "@") : end + 1 + strcspn(end + 1, "@/");
    if (!copy_text(out->repo, sizeof out->repo, text, (size_t)(end - text)))
        return "the name is too long";
    if (*end == '@') {
        const size_t size = strcspn(end + 1, "/");

        if (!copy_text(out->revision, sizeof out->revision, end + 1, size))
            return "the revision is too long";
        end += 1 + size;
    }
    if (*end == '/' && !copy_text(out->path, sizeof out->path, end + 1, strlen(end + 1)))
        return "the path is too long";
    return hub_repo_complaint(out->repo);
}

/* Parse the address of a page: https://huggingface.co/OWNER/NAME[/tree/REVISION[/PATH]]. */
static const char *parse_page(const char *text, hub_name *out)
{
    static const char *const views[] = { "tree/", "blob/", "resolve/" };
    char path[sizeof out->path];
    const char *complaint;

    complaint = parse_parts(text, out);
    memcpy(path, out->path, sizeof path);
    path[strcspn(path, "?#")] = '\0';
    out->path[0] = '\0';
    for (size_t i = 0; i < 3; i++) {
        const size_t skipped = strlen(views[i]);
        const size_t size =
            strncmp(path, views[i], skipped) == 0 ? strcspn(path + skipped, "/") : 0;

        if (size == 0)
            continue;
        copy_text(out->revision, sizeof out->revision, path + skipped, size);
        if (path[skipped + size] == '/')
            copy_text(out->path, sizeof out->path, path + skipped + size + 1,
                      strlen(path + skipped + size + 1));
    }
    return complaint;
}

const char *hub_parse_name(const char *text, hub_name *out)
{
    static const struct {
        const char *prefix;
        const char *type;
    } types[] = { { "models/", "model" }, { "datasets/", "dataset" }, { "spaces/", "space" } };
    static const char *const pages[] = { "https://huggingface.co/", "https://hf.co/" };
    const char *page = NULL;

    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < 2; i++)
        if (strncmp(text, pages[i], strlen(pages[i])) == 0)
            page = text + strlen(pages[i]);
    if (page == NULL && strstr(text, "://") != NULL && strncmp(text, "hf://", 5) != 0)
        return "expected OWNER/NAME; another hub is chosen by --hub or --endpoint";
    if (page == NULL && strncmp(text, "hf://", 5) != 0) {
        const char *complaint = parse_parts(text, out);

        return complaint != NULL || out->path[0] == '\0' ? complaint : hub_repo_complaint(text);
    }
    text = page != NULL ? page : text + 5;
    for (size_t i = 0; i < 3; i++)
        if (strncmp(text, types[i].prefix, strlen(types[i].prefix)) == 0) {
            text += strlen(types[i].prefix);
            out->type = types[i].type;
            break;
        }
    return page != NULL ? parse_page(text, out) : parse_parts(text, out);
}

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
    return hub_fail(HUB_NOT_FOUND, err, "'%s' has no file '%s'", h->options.repo, name);
}

ckpt_code hub_select(hub *h, hub_listing *listing, const hub_selection *selection,
                     ckpt_error *err)
{
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
        code = hub_fail(HUB_NOT_FOUND, err, "no file of '%s' matches",
                        h->options.repo);
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
