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

        if (size == 0)
            return "the revision is empty";
        if (!copy_text(out->revision, sizeof out->revision, end + 1, size))
            return "the revision is too long";
        end += 1 + size;
    }
    out->path_bytes = *end == '/' ? strlen(end + 1) : 0;
    if (*end == '/' && !copy_text(out->path, sizeof out->path, end + 1, out->path_bytes))
        return "the path is too long";
    return hub_repo_complaint(out->repo);
}

/* The revision and the path of a page, whose name ends in VIEW/REVISION[/PATH]. The page of a pull
 * request is that of refs%2Fpr%2FN. */
static const char *parse_view(const char *page, hub_name *out)
{
    static const char *const views[] = { "tree/", "blob/", "resolve/", "raw/", "commit/",
                                         "file/view/" };
    const char *complaint;

    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        const size_t skipped = strlen(views[i]);
        const char *revision = page + skipped;
        const size_t size = strncmp(page, views[i], skipped) == 0 ? strcspn(revision, "/") : 0;

        if (size == 0)
            continue;
        if (!copy_text(out->revision, sizeof out->revision, revision, size))
            return "the revision is too long";
        if (revision[size] == '/') {
            copy_text(out->path, sizeof out->path, revision + size + 1,
                      strlen(revision + size + 1));
            out->path_bytes -= (size_t)(revision + size + 1 - page);
        } else {
            out->path_bytes = 0;
        }
        complaint = hub_decode(out->revision);
        return complaint != NULL ? complaint : hub_decode(out->path);
    }
    return "expected the page of a repository, of its files (/tree/REVISION) or of one of them "
           "(/blob/REVISION/PATH)";
}

/* Parse the address of a page: https://huggingface.co/OWNER/NAME[/tree/REVISION[/PATH]]. What is
 * not understood is refused, as it may name another version than that of the main branch. */
static const char *parse_page(const char *text, hub_name *out)
{
    char page[sizeof out->path];
    const char *complaint = parse_parts(text, out);
    const char *query;
    size_t size;

    if (complaint != NULL)
        return complaint;
    out->path[strcspn(out->path, "#")] = '\0';
    size = strcspn(out->path, "?");
    query = out->path + size;
    if (strstr(query, "evision=") != NULL)
        return "expected the revision in the path (/tree/REVISION)";
    while (size > 0 && out->path[size - 1] == '/')
        size--;
    copy_text(page, sizeof page, out->path, size);
    out->path[0] = '\0';
    if (page[0] != '\0' && strcmp(page, "files") != 0 && strcmp(page, "summary") != 0)
        return parse_view(page, out);
    out->path_bytes = 0;
    return NULL;
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
