/* download_root.c: location of the download folder: its root, paths below it, and the reference to
 * its commit. */
#include "download_root.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "download_tree.h"
#include "libckpt/file.h"

const char *place_path(const place *p)
{
    return p->shown;
}

int place_root_fd(const place *p)
{
    return p->root_fd;
}

int place_format(char *out, const char *format, const char *a, const char *b)
{
    const int size = snprintf(out, PLACE_PATH_BYTES, format, a, b);

    return size > 0 && size < PLACE_PATH_BYTES;
}

char *place_root_of(const place_options *o)
{
    const hub_options *h = &o->h->options;
    const char *cache = o->cache_dir;
    char name[400];
    size_t used;

    if (o->local_dir != NULL)
        return strdup(o->local_dir);
    used = (size_t)snprintf(name, sizeof name, "%ss--", h->type);
    for (const char *c = h->repo; *c != '\0' && used + 3 < sizeof name; c++) {
        name[used++] = *c == '/' ? '-' : *c;
        if (*c == '/')
            name[used++] = '-';
    }
    name[used] = '\0';
    return file_join(cache, name);
}

ckpt_code place_make_root(const char *path, ckpt_error *err)
{
    char *inner = file_join(path, "x");
    ckpt_code code = inner == NULL ? ckpt_fail_memory(err, "a path", 0)
                                   : file_make_parents(inner, err);

    free(inner);
    return code;
}

ckpt_code place_write_ref(const place *p, ckpt_error *err)
{
    const char *revision = p->options.h->options.revision;
    const char *commit = p->options.listing->commit;
    place_options cache = p->options;
    char path[PLACE_PATH_BYTES];
    char *root;
    int fd;
    ckpt_code code;

    if (strcmp(revision, commit) == 0 || hub_path_complaint(revision) != NULL ||
        !place_format(path, "refs/%s%s", revision, ""))
        return CKPT_OK;
    cache.local_dir = NULL;
    if ((root = place_root_of(&cache)) == NULL)
        return ckpt_fail_memory(err, "a path", 0);
    if ((code = place_make_root(root, err)) == CKPT_OK) {
        fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            code = hub_fail_disk(errno, err, "cannot open '%s'", root);
        else
            code = tree_write(&(tree_target){ fd, path, fd }, commit, 1, err);
        if (fd >= 0)
            close(fd);
    }
    free(root);
    return code;
}
