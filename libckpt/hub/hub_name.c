/* hub_name.c: names of repositories, as they are given by users. */
#include "hub_name.h"

#include <string.h>

#include "hub_text.h"

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

/* The type before the name, if there is one; returns what follows. */
static const char *take_type(const char *text, hub_name *out)
{
    static const struct {
        const char *prefix;
        const char *type;
    } types[] = { { "models/", "model" }, { "datasets/", "dataset" }, { "spaces/", "space" } };

    for (size_t i = 0; i < 3; i++)
        if (strncmp(text, types[i].prefix, strlen(types[i].prefix)) == 0) {
            out->type = types[i].type;
            return text + strlen(types[i].prefix);
        }
    return text;
}

const char *hub_parse_parts(const char *text, hub_name *out)
{
    memset(out, 0, sizeof *out);
    return parse_parts(take_type(text, out), out);
}

const char *hub_parse_page(const char *text, hub_name *out)
{
    memset(out, 0, sizeof *out);
    return parse_page(take_type(text, out), out);
}

const char *hub_parse_name(const char *text, hub_name *out)
{
    static const char *const pages[] = { "https://huggingface.co/", "https://hf.co/" };
    const char *complaint;

    for (size_t i = 0; i < 2; i++)
        if (strncmp(text, pages[i], strlen(pages[i])) == 0)
            return hub_parse_page(text + strlen(pages[i]), out);
    if (strncmp(text, "hf://", 5) == 0)
        return hub_parse_parts(text + 5, out);
    memset(out, 0, sizeof *out);
    if (strstr(text, "://") != NULL)
        return "expected OWNER/NAME; another hub is chosen by --hub or --endpoint";
    complaint = parse_parts(text, out);
    return complaint != NULL || out->path[0] == '\0' ? complaint : hub_repo_complaint(text);
}
