/* Which paths may be outputs: they can be made, may be replaced, and are apart from the inputs. */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "output_private.h"
#include "replaceable.h"
#include "text.h"

const char output_partial_suffix[] = ".partial";
const char output_replaced_suffix[] = ".ckpt-replaced";

char *output_with_suffix(const char *path, const char *suffix)
{
    size_t length = strlen(path);
    char *text;

    while (length > 1 && path[length - 1] == '/')
        length--;
    text = malloc(length + strlen(suffix) + 1);
    if (text == NULL)
        return NULL;
    memcpy(text, path, length);
    memcpy(text + length, suffix, strlen(suffix) + 1);
    return text;
}

ckpt_code output_fail_exists(const char *path, const char *layout, int overwrite, ckpt_error *err)
{
    struct stat status;
    ckpt_error why;

    if (lstat(path, &status) == 0 && !S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode) &&
        !S_ISLNK(status.st_mode))
        return replaceable_check(path, layout, err);     /* a device: nobody moves it away */
    if (overwrite == OUTPUT_NEVER_REPLACES)
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' already exists: move it away or choose another "
                         "name", path);
    if (replaceable_check(path, layout, &why) != CKPT_OK)
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' already exists and does not contain only a "
                         "checkpoint: choose another name", path);
    return ckpt_fail(err, CKPT_E_USAGE, "'%s' already exists; --overwrite replaces it", path);
}

/* "s3://bucket/x", "host:/x", "user@host:x": where other programs copy to. */
static int is_remote(const char *path)
{
    const size_t size = strcspn(path, ":/");

    return size > 0 && path[size] == ':' &&
           (path[size + 1] == '/' || memchr(path, '@', size) != NULL);
}

ckpt_code output_check_ending(const char *path, const char *what, ckpt_error *err)
{
    static const char *const endings[] = { ".gguf", ".safetensors" };

    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (text_ends_with(path, endings[i]) && !file_exists(path))
            return ckpt_fail(err, CKPT_E_USAGE, "'%s' would be %s: choose a name without '%s'",
                             path, what, endings[i]);
    return CKPT_OK;
}

/* Refuse a path that cannot be the target of a rename. `path` has no slash at its end. */
static ckpt_code check_name(const char *path, ckpt_error *err)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    char *parent = file_parent(path);
    ckpt_code code = CKPT_OK;
    struct stat around;
    struct stat status;

    if (parent == NULL)
        return ckpt_fail_memory(err, "a path", strlen(path));
    if (strcmp(path, "-") == 0)
        code = ckpt_fail(err, CKPT_E_USAGE, "the output '-': a checkpoint is a folder and cannot "
                         "be written to standard output (use './-' for a folder '-')");
    else if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        code = ckpt_fail(err, CKPT_E_USAGE, "the output '%s': expected the name of a new "
                         "folder", path);
    else if (stat(parent, &around) != 0 && is_remote(path))
        code = ckpt_fail(err, CKPT_E_USAGE, "cannot write '%s': only local folders can be written; "
                         "copy the result with rsync or the like", path);
    else if (stat(parent, &around) != 0 && file_begins_at_home(path))
        code = file_fail_home(path, err);
    else if (stat(parent, &around) != 0)
        code = ckpt_fail(err, CKPT_E_USAGE, "cannot write '%s': '%s': %s", path, parent,
                         strerror(errno));
    else if (!S_ISDIR(around.st_mode))
        code = ckpt_fail(err, CKPT_E_USAGE, "cannot write '%s': '%s' is not a directory", path,
                         parent);
    else if (faccessat(AT_FDCWD, parent, W_OK | X_OK, AT_EACCESS) != 0)
        code = ckpt_fail(err, CKPT_E_USAGE, "cannot write '%s': '%s': %s", path, parent,
                         strerror(errno));
    else if (lstat(path, &status) == 0 && S_ISDIR(status.st_mode) &&
             status.st_dev != around.st_dev)
        code = ckpt_fail(err, CKPT_E_USAGE, "the output '%s' is a mount point, which cannot be "
                         "replaced by a rename: use a folder in it", path);
    free(parent);
    return code;
}

ckpt_code output_check(const char *path, const char *layout, int overwrite, ckpt_error *err)
{
    const hash128 any = { 0, 0 };
    journal_sight sight;
    char *bare;
    ckpt_code code;

    if (path[0] == '\0')
        return ckpt_fail(err, CKPT_E_USAGE, "the output path is empty");
    if ((bare = output_with_suffix(path, "")) == NULL)
        return ckpt_fail_memory(err, "a path", strlen(path));
    if ((code = check_name(bare, err)) == CKPT_OK &&
        (code = output_check_ending(bare, "a folder with files in it, not a file", err)) == CKPT_OK)
        code = file_check_name(
            bare, strlen(overwrite > 0 ? output_replaced_suffix : output_partial_suffix), err);
    free(bare);
    if (code != CKPT_OK || !file_exists(path))
        return code;
    if (overwrite > 0)
        return replaceable_check(path, layout, err);
    /* Whether it is the journal of this command is checked later, by take_back. */
    if ((code = journal_look(path, any, &sight, err)) != CKPT_OK || sight.is_other ||
        sight.same_count > 0)
        return code;
    return output_fail_exists(path, layout, overwrite, err);
}

/* Is the absolute path `a` the same as `b`, or below it? */
static int is_within(const char *a, const char *b)
{
    const size_t length = strlen(b);

    return strncmp(a, b, length) == 0 &&
           (a[length] == '\0' || a[length] == '/' || b[length - 1] == '/');
}

/* Refuse an input at (or below) one of the temporary names beside the output. */
static ckpt_code check_beside(const char *to, const char *from, const char *suffix,
                              ckpt_error *err)
{
    char *beside = output_with_suffix(to, suffix);
    ckpt_code code = CKPT_OK;

    if (beside == NULL)
        return ckpt_fail_memory(err, "a path", strlen(to));
    if (is_within(from, beside))
        code = ckpt_fail(err, CKPT_E_USAGE, "the output '%s' needs the name '%s' for a temporary "
                         "folder: rename one of them", to, from);
    free(beside);
    return code;
}

ckpt_code output_check_apart(const char *path, const char *input, ckpt_error *err)
{
    char *to = file_rename_target(path);
    char *from = file_exists(input) ? realpath(input, NULL) : file_rename_target(input);
    ckpt_code code = CKPT_OK;

    if (to == NULL || from == NULL)
        code = CKPT_OK;                  /* one of them does not exist */
    else if (strcmp(to, from) == 0)
        code = ckpt_fail(err, CKPT_E_USAGE, "the output '%s' and '%s' are the same", path, input);
    else if (is_within(to, from))
        code = ckpt_fail(err, CKPT_E_USAGE, "the output '%s' is inside the input '%s'", path,
                         input);
    else if (is_within(from, to))
        code = ckpt_fail(err, CKPT_E_USAGE, "the output '%s' would replace '%s'", path,
                         input);
    else if ((code = check_beside(to, from, output_partial_suffix, err)) == CKPT_OK)
        code = check_beside(to, from, output_replaced_suffix, err);
    free(to);
    free(from);
    return code;
}

/* *found: 1 when a file below the directory is the one at `path`, also through links. */
static ckpt_code find_in_tree(const char *path, const char *directory, int *found,
                              ckpt_error *err)
{
    file_list names;
    ckpt_code code = file_list_tree(directory, &names, err);

    for (size_t i = 0; i < names.count && !*found && code == CKPT_OK; i++) {
        char *file = file_join(directory, names.names[i]);

        if (file == NULL)
            code = ckpt_fail_memory(err, "a path", strlen(directory));
        else
            *found = file_is_same(file, path);
        free(file);
    }
    file_list_free(&names);
    return code;
}

ckpt_code output_check_spares(const char *path, const char *input, ckpt_error *err)
{
    char *to = file_rename_target(path);
    char *from = realpath(input, NULL);
    ckpt_code code = CKPT_OK;
    int found = 0;

    if (to != NULL && from != NULL && file_exists(path)) {
        found = is_within(to, from) || file_is_same(path, input);
        if (!found && file_is_directory(input))
            code = find_in_tree(path, input, &found, err);
        if (found)
            code = ckpt_fail(err, CKPT_E_USAGE, "'%s' is a file of the input '%s'", path, input);
    }
    free(to);
    free(from);
    return code;
}
