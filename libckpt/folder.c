/* folder.c: folders of any kind, through their table of operations. */
#include "folder.h"

#include <stdlib.h>
#include <string.h>

void folder_close(ckpt_folder *f)
{
    if (f != NULL)
        f->ops->close(f);
}

void folder_place_release(folder_place *place)
{
    folder_close(place->folder);
    free(place->name);
    free(place->path);
    memset(place, 0, sizeof *place);
}

const char *folder_path(const ckpt_folder *f)
{
    return f->path;
}

char *folder_path_of(const ckpt_folder *f, const char *name)
{
    return file_join(f->path, name);
}

ckpt_code folder_list(const ckpt_folder *f, folder_visit_fn *visit, void *context,
                      ckpt_error *err)
{
    return f->ops->list(f, visit, context, err);
}

ckpt_code folder_list_tree(const ckpt_folder *f, file_list *out, ckpt_error *err)
{
    return f->ops->list_tree(f, out, err);
}

int folder_has(const ckpt_folder *f, const char *name)
{
    return f->ops->has(f, name);
}

ckpt_code folder_open_file(const ckpt_folder *f, const char *name, ckpt_file **out,
                           ckpt_error *err)
{
    *out = NULL;
    return f->ops->open(f, name, out, err);
}

ckpt_code folder_copy(const ckpt_folder *f, const char *name, const char *to, ckpt_error *err)
{
    return f->ops->copy(f, name, to, err);
}

ckpt_code folder_check_unchanged(const ckpt_folder *f, ckpt_error *err)
{
    return f->ops->check_unchanged == NULL ? CKPT_OK : f->ops->check_unchanged(f, err);
}

ckpt_code folder_enter(const ckpt_folder *f, const char *name, ckpt_folder **out,
                       ckpt_error *err)
{
    *out = NULL;
    return f->ops->enter(f, name, out, err);
}

/* ---- built on these ---- */

ckpt_code folder_read_all(const ckpt_folder *f, const char *name, uint64_t max_bytes,
                          folder_text *out, ckpt_error *err)
{
    memset(out, 0, sizeof *out);
    if ((out->path = folder_path_of(f, name)) == NULL)
        return ckpt_fail_memory(err, "a path", strlen(name));
    return f->ops->read_all(f, name, max_bytes, &out->bytes, &out->size, err);
}

void folder_text_release(folder_text *text)
{
    free(text->path);
    free(text->bytes);
    memset(text, 0, sizeof *text);
}

typedef struct {
    int (*is_wanted)(const char *name);
    int *found;
} name_finder;

static int find_wanted(void *context, const char *name)
{
    const name_finder *finder = context;

    *finder->found = name[0] != '.' && finder->is_wanted(name);
    return *finder->found;
}

ckpt_code folder_find_name(const ckpt_folder *f, int (*is_wanted)(const char *name), int *found,
                           ckpt_error *err)
{
    name_finder finder = { is_wanted, found };

    *found = 0;
    return folder_list(f, find_wanted, &finder, err);
}
