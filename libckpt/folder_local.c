/* folder_local.c: a folder on a local disk. No other code joins paths to read checkpoints. */
#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "packed.h"

typedef struct {
    ckpt_folder base;
    char path[];
} local_folder;

static ckpt_code fail_path(const char *name, ckpt_error *err)
{
    return ckpt_fail_memory(err, "a path", strlen(name));
}

static ckpt_code local_list(const ckpt_folder *f, folder_visit_fn *visit, void *context,
                            ckpt_error *err)
{
    DIR *folder = opendir(f->path);
    const struct dirent *entry = NULL;
    ckpt_code code = CKPT_OK;
    int is_over = 0;

    if (folder != NULL)
        do {
            errno = 0;
            entry = readdir(folder);
            if (entry != NULL && strcmp(entry->d_name, ".") != 0 &&
                strcmp(entry->d_name, "..") != 0)
                is_over = visit(context, entry->d_name);
        } while (entry != NULL && !is_over);
    if (entry == NULL && errno != 0)
        code = ckpt_fail(err, CKPT_E_IO, "cannot read the folder '%s': %s", f->path,
                         strerror(errno));
    if (folder != NULL)
        closedir(folder);
    return code;
}

static ckpt_code local_list_tree(const ckpt_folder *f, file_list *out, ckpt_error *err)
{
    return file_list_tree(f->path, out, err);
}

static int local_has(const ckpt_folder *f, const char *name)
{
    char *path = file_join(f->path, name);
    /* Without memory it cannot be determined: answer 1, as file_exists does. */
    const int found = name[0] != '\0' && (path == NULL || file_exists(path));

    free(path);
    return found;
}

static ckpt_code local_open(const ckpt_folder *f, const char *name, ckpt_file **out,
                            ckpt_error *err)
{
    char *path = file_join(f->path, name);
    const ckpt_code code = path == NULL ? fail_path(name, err) : file_open(path, out, err);

    free(path);
    return code;
}

static ckpt_code local_read_all(const ckpt_folder *f, const char *name, uint64_t max_bytes,
                                char **out, size_t *size, ckpt_error *err)
{
    char *path = file_join(f->path, name);
    const ckpt_code code =
        path == NULL ? fail_path(name, err) : file_read_all(path, max_bytes, out, size, err);

    free(path);
    return code;
}

static ckpt_code local_copy(const ckpt_folder *f, const char *name, const char *to,
                            ckpt_error *err)
{
    char *path = file_join(f->path, name);
    const ckpt_code code = path == NULL ? fail_path(name, err) : file_copy(path, to, err);

    free(path);
    return code;
}

static ckpt_code local_enter(const ckpt_folder *f, const char *name, ckpt_folder **out,
                             ckpt_error *err)
{
    char *path = file_join(f->path, name);
    const ckpt_code code = path == NULL ? fail_path(name, err) : folder_open_local(path, out, err);

    free(path);
    return code;
}

static void local_close(ckpt_folder *f)
{
    free(f);
}

static const folder_ops local_ops = {
    .list = local_list,
    .list_tree = local_list_tree,
    .has = local_has,
    .open = local_open,
    .read_all = local_read_all,
    .copy = local_copy,
    .enter = local_enter,
    .close = local_close,
};

ckpt_code folder_open_local(const char *path, ckpt_folder **out, ckpt_error *err)
{
    const size_t path_bytes = strlen(path) + 1;
    local_folder *f = malloc(sizeof *f + path_bytes);

    *out = NULL;
    if (f == NULL)
        return ckpt_fail_memory(err, "a folder", sizeof *f + path_bytes);
    memcpy(f->path, path, path_bytes);
    f->base = (ckpt_folder){ .ops = &local_ops, .path = f->path };
    *out = &f->base;
    return CKPT_OK;
}

ckpt_code folder_open_place(const char *path, folder_place *out, ckpt_error *err)
{
    const char *slash = strrchr(path, '/');
    char *directory;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if ((out->path = strdup(path)) == NULL)
        return fail_path(path, err);
    if (file_is_directory(path))
        return folder_open_local(path, &out->folder, err);
    if (packed_detect(path))
        return packed_open(path, &out->folder, err);
    directory = slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    out->name = strdup(slash == NULL ? path : slash + 1);
    code = directory == NULL || out->name == NULL
               ? fail_path(path, err)
               : folder_open_local(directory, &out->folder, err);
    free(directory);
    return code;
}
