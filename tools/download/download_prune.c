/* download_prune.c: files in a folder that do not belong to its repository, and leftovers of
 * downloads. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <unistd.h>

#include "download_root.h"
#include "download_tree.h"
#include "libckpt/file.h"
#include "libckpt/text.h"

/* ---- files that the hub does not list ---- */

static int is_kept_folder(const FTSENT *entry)
{
    return strcmp(entry->fts_name, ".cache") == 0 || strcmp(entry->fts_name, ".git") == 0;
}

/* Folders are removed only when that leaves them empty. */
static ckpt_code prune_entry(const place *p, FTS *tree, FTSENT *entry, place_pruned *out,
                             ckpt_error *err)
{
    const char *path = entry->fts_path + strlen(p->root);

    while (*path == '/')
        path++;
    if (entry->fts_level == 0)
        return CKPT_OK;
    if (entry->fts_info == FTS_D && is_kept_folder(entry)) {
        fts_set(tree, entry, FTS_SKIP);
        return CKPT_OK;
    }
    if (entry->fts_info == FTS_D || (entry->fts_info == FTS_DP && is_kept_folder(entry)))
        return CKPT_OK;
    if (entry->fts_info == FTS_DNR || entry->fts_info == FTS_ERR || entry->fts_info == FTS_NS)
        return hub_fail_disk(entry->fts_errno, err, "cannot stat '%s'", path);
    if (entry->fts_info == FTS_DP) {
        if (!p->options.dry_run)
            rmdir(entry->fts_path);
        return CKPT_OK;
    }
    if (hub_listing_find(p->options.listing, path) != NULL)
        return CKPT_OK;
    out->count++;
    out->bytes += entry->fts_statp == NULL ? 0 : (uint64_t)entry->fts_statp->st_size;
    return p->options.dry_run ? file_list_add(&out->names, path, err)
                              : tree_remove(p->root_fd, path, err);
}

ckpt_code place_prune(const place *p, place_pruned *out, ckpt_error *err)
{
    char *const roots[] = { p->root, NULL };
    FTS *tree;
    ckpt_code code = CKPT_OK;

    memset(out, 0, sizeof *out);
    if (p->root_fd < 0)          /* a dry run, and the folder does not exist */
        return CKPT_OK;
    if ((tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL)) == NULL)
        return hub_fail_disk(errno, err, "cannot list '%s'", p->root);
    for (FTSENT *e = fts_read(tree); e != NULL && code == CKPT_OK; e = fts_read(tree))
        code = prune_entry(p, tree, e, out, err);
    if (code == CKPT_OK && errno != 0)       /* the end sets it to 0 */
        code = hub_fail_disk(errno, err, "cannot list '%s'", p->root);
    fts_close(tree);
    return code;
}

/* Only files of downloads count: every home folder has a .cache/huggingface, which holds the
 * cache. */
static ckpt_code look_for_download(int root, int *found, ckpt_error *err)
{
    struct stat listing;
    struct stat records;
    ckpt_code code;

    if ((code = tree_stat(root, PLACE_SIDE "/listing.json", &listing, err)) == CKPT_OK &&
        (code = tree_stat(root, ".cache/huggingface/download", &records, err)) == CKPT_OK)
        *found = listing.st_mode != 0 || records.st_mode != 0;
    return code;
}

static int is_empty(const char *path)
{
    DIR *folder = opendir(path);
    const struct dirent *entry;
    int count = 0;

    while (folder != NULL && (entry = readdir(folder)) != NULL)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    if (folder != NULL)
        closedir(folder);
    return folder != NULL && count == 0;
}

ckpt_code place_check_prune(const char *local_dir, ckpt_error *err)
{
    const int root = open(local_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int may = root < 0 || is_empty(local_dir);     /* place_open reports a root that cannot be
                                                    * opened */
    ckpt_code code = may ? CKPT_OK : look_for_download(root, &may, err);

    if (root >= 0)
        close(root);
    return code != CKPT_OK || may
               ? code
               : hub_fail(HUB_USAGE, err, "'%s' was not made by a download: --prune-extra deletes "
                          "nothing from it", local_dir);
}

/* ---- unfinished files of the Python client ---- */

/* Names end in HASH.incomplete; since 1.18 there is a random word in between: such files are not
 * certainly prefixes and are not resumed. */
static int is_prefix_of(const char *name, const hub_file *file)
{
    static const char ending[] = ".incomplete";
    const size_t size = strlen(name);
    const size_t tail = strlen(file->hash) + sizeof ending - 1;

    return size >= tail && text_ends_with(name, ending) &&
           strncmp(name + size - tail, file->hash, strlen(file->hash)) == 0;
}

ckpt_code place_adopt(const place *p, const hub_file *file, ckpt_error *err)
{
    char path[PLACE_PATH_BYTES];
    const struct dirent *entry;
    struct stat status;
    partial_place at = place_partial(p, file);
    DIR *folder;
    int fd;
    ckpt_code code;

    if (!p->is_hf || !place_format(path, p->is_cache ? "blobs/%s%s"
                                                     : ".cache/huggingface/download/%s%s",
                                   p->is_cache ? "x" : file->path, ""))
        return CKPT_OK;
    *strrchr(path, '/') = '\0';          /* the folder, which may be absent */
    if ((code = tree_stat(p->root_fd, path, &status, err)) != CKPT_OK || status.st_mode == 0 ||
        (code = tree_open_folder(p->root_fd, path, &fd, err)) != CKPT_OK)
        return code;
    if ((folder = fdopendir(fd)) == NULL) {
        code = hub_fail_disk(errno, err, "cannot list '%s'", path);
        close(fd);
        return code;
    }
    while (code == CKPT_OK && (errno = 0, entry = readdir(folder)) != NULL)
        if (is_prefix_of(entry->d_name, file))
            code = partial_adopt(&at, file, dirfd(folder), entry->d_name, err);
    if (code == CKPT_OK && errno != 0)
        code = hub_fail_disk(errno, err, "cannot list '%s'", path);
    closedir(folder);
    return code;
}

uint64_t place_foreign_bytes(const place *p)
{
    char *folder = p->is_cache || !p->is_hf ? NULL
                                            : file_join(p->root, ".cache/huggingface/download");
    file_list list = { 0 };
    uint64_t bytes = 0;
    ckpt_error ignored;

    if (folder != NULL && file_is_directory(folder) &&
        file_list_tree(folder, &list, &ignored) == CKPT_OK) {
        for (size_t i = 0; i < list.count; i++) {
            char path[PLACE_PATH_BYTES];
            struct stat status;

            if (text_ends_with(list.names[i], ".incomplete") &&
                place_format(path, ".cache/huggingface/download/%s%s", list.names[i], "") &&
                tree_stat(p->root_fd, path, &status, NULL) == CKPT_OK)
                bytes += (uint64_t)status.st_size;
        }
        file_list_free(&list);
    }
    free(folder);
    return bytes;
}
