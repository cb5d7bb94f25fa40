/* Reads lists of digests. */
#include "digest_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "libckpt/error.h"
#include "libckpt/file.h"

enum { HEX_COUNT = CKPT_ROOT_HEX - 1, LIST_BYTES_MAX = 64 << 20 };

static const char main_mark[] = " (main)";

/* Parse "HEX  PATH" or, as from sha256sum for binary files, "HEX *PATH". */
static int parse_line(char *line, digest_entry *out)
{
    char *path = line + HEX_COUNT + 2;

    if (strspn(line, "0123456789abcdef") != HEX_COUNT || line[HEX_COUNT] != ' ' ||
        (line[HEX_COUNT + 1] != ' ' && line[HEX_COUNT + 1] != '*') || *path == '\0')
        return 0;
    memcpy(out->root, line, HEX_COUNT);
    out->root[HEX_COUNT] = '\0';
    out->path = path;
    return 1;
}

/* 1 when `path` is `other` and the mark. */
static int is_marked(const char *path, const char *other)
{
    const size_t length = strlen(other);

    return strncmp(path, other, length) == 0 && strcmp(path + length, main_mark) == 0;
}

/*
 * Which lines are of main: a name may itself end in the mark. Beside the line of the same
 * checkpoint, which digest prints before it, there is no doubt; a line alone is of main unless a
 * checkpoint of the whole name exists.
 */
static void find_marks(digest_list *list)
{
    const size_t mark = sizeof main_mark - 1;

    for (size_t i = 0; i < list->count; i++) {
        digest_entry *e = &list->entries[i];
        const digest_entry *before = i > 0 ? e - 1 : NULL;
        const size_t length = strlen(e->path);

        if (length <= mark || strcmp(e->path + length - mark, main_mark) != 0)
            continue;
        if (before != NULL && !before->is_main && is_marked(e->path, before->path))
            e->is_main = 1;
        else
            e->is_main = !(i + 1 < list->count && is_marked(e[1].path, e->path)) &&
                         !file_exists(e->path);
        if (e->is_main)
            e->path[length - mark] = '\0';
    }
}

static size_t count_lines(const char *text)
{
    size_t count = 1;

    for (; *text != '\0'; text++)
        count += *text == '\n';
    return count;
}

ckpt_code digest_list_read(const char *path, digest_list *out, ckpt_error *err)
{
    size_t number = 0;
    size_t size;
    char *line;
    char *next;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    code = file_read_named(path, LIST_BYTES_MAX, &out->text, &size, err);
    if (code != CKPT_OK)
        return code;
    if (strlen(out->text) != size)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not a list of digests: it has a byte 0",
                         path);
    out->entries = calloc(count_lines(out->text), sizeof *out->entries);
    if (out->entries == NULL)
        return ckpt_fail_memory(err, "a list", size);
    for (line = out->text; line != NULL; line = next) {
        number++;
        if ((next = strchr(line, '\n')) != NULL)
            *next++ = '\0';
        if (*line == '\0')
            continue;
        if (number == 1 && line[0] == '{')
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is JSON, not a list of digests: a manifest "
                             "is for ckpt-verify check --manifest", path);
        if (!parse_line(line, &out->entries[out->count]))
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s', line %zu: expected a root of %d hex "
                             "digits, two blanks and a path, as `ckpt-verify digest` prints "
                             "without --tensors", path, number, HEX_COUNT);
        out->count++;
    }
    find_marks(out);
    return out->count > 0 ? CKPT_OK
                          : ckpt_fail(err, CKPT_E_FORMAT, "'%s' has no digests: nothing to check",
                                      path);
}

void digest_list_release(digest_list *list)
{
    free(list->entries);
    free(list->text);
    memset(list, 0, sizeof *list);
}

void digest_list_tell(const digest_entry *entry, const char *got, int is_same, json_writer *w)
{
    if (w == NULL) {
        printf("%s%s: %s\n", cli_name(entry->path), entry->is_main ? main_mark : "",
               got == NULL ? "FAILED open or read" : is_same ? "OK" : "FAILED");
        return;
    }
    json_put_object(w);
    json_member_string(w, "path", entry->path);
    json_member_bool(w, "is_main", entry->is_main);
    json_member_string(w, "expected", entry->root);
    json_member_string(w, "got", got);
    json_member_bool(w, "same", is_same);
    json_put_object_end(w);
}
