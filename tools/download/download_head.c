/* download_head.c: files of which only the header is present. */
#include "download_head.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "download_tree.h"
#include "formats/safetensors.h"
#include "libckpt/file.h"
#include "libckpt/text.h"

enum { LENGTH_BYTES = 8, FIRST_BYTES = 1 << 20, NAME_BYTES = 100 };

int head_is_shard(const hub_file *file)
{
    return file->is_selected && file->size_bytes >= PARTIAL_JOURNAL_BYTES &&
           strchr(file->path, '/') == NULL && text_ends_with(file->path, SAFETENSORS_SUFFIX);
}

static void name_of(const partial_place *at, const hub_file *file, char out[NAME_BYTES])
{
    snprintf(out, NAME_BYTES, "%s.%s.head", at->key, file->hash);
}

/* The first 60 bits of the hash as a time: 30 of them seconds, so that any file system keeps it. */
static struct timespec time_of(const hub_file *file)
{
    char text[16];
    unsigned long long bits;
    struct timespec out;

    snprintf(text, sizeof text, "%.15s", file->hash);
    bits = strtoull(text, NULL, 16);
    out.tv_sec = (time_t)(bits >> 30);
    out.tv_nsec = (long)(bits & ((1 << 30) - 1)) % 1000000000;
    return out;
}

static ckpt_code find_head(const partial_place *at, const char *name, const hub_file *file,
                           int *found, ckpt_error *err)
{
    const struct timespec time = time_of(file);
    struct stat status;
    const ckpt_code code = tree_stat(at->side_fd, name, &status, err);

    *found = S_ISREG(status.st_mode) && (uint64_t)status.st_size == file->size_bytes &&
             status.st_mtim.tv_sec == time.tv_sec;
    return code;
}

static int read_at(int fd, void *out, size_t size, uint64_t offset)
{
    char *at = out;

    while (size > 0) {
        const ssize_t got = pread(fd, at, size, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            errno = ENODATA;
        if (got <= 0)
            return 0;
        at += got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return 1;
}

/* Read length and header. *bytes: their size; 0 if they are invalid. */
static ckpt_code measure(int fd, const hub_file *file, uint64_t *bytes, ckpt_error *err)
{
    unsigned char length[LENGTH_BYTES];
    uint64_t value = 0;

    if (!read_at(fd, length, sizeof length, 0))
        return hub_fail_disk(errno, err, "cannot read '%s' back", file->path);
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        value = value << 8 | length[i];
    if (value > SAFETENSORS_HEADER_MAX || value > file->size_bytes - LENGTH_BYTES)
        return hub_fail(HUB_INTEGRITY, err, "'%s' is not a safetensors file: its header would "
                        "have %" PRIu64 " bytes", file->path, value);
    *bytes = LENGTH_BYTES + value;
    return CKPT_OK;
}

/* Renamed into place when it is on the disk: an existing head is complete. */
static ckpt_code write_head(const partial_place *at, const char *name, const hub_file *file,
                            const void *bytes, size_t size, ckpt_error *err)
{
    static const char temporary[] = TREE_SCRATCH "head";
    const struct timespec times[2] = { time_of(file), time_of(file) };
    int fd;
    ckpt_code code = tree_open_file(at->side_fd, temporary, O_RDWR | O_CREAT | O_TRUNC, &fd, err);

    if (code != CKPT_OK)
        return code;
    if (pwrite(fd, bytes, size, 0) != (ssize_t)size ||
        ftruncate(fd, (off_t)file->size_bytes) != 0 || futimens(fd, times) != 0 ||
        fsync(fd) != 0 || renameat(at->side_fd, temporary, at->side_fd, name) != 0)
        code = hub_fail_disk(errno, err, "cannot write '%s'", name);
    close(fd);
    return code;
}

/* The number of bytes present from the start of the file, and a descriptor to read them, or -1. */
static ckpt_code open_front(const place *p, const hub_file *file, const partial_place *at,
                            partial_prefix *out, ckpt_error *err)
{
    const place_state state = place_look(p, file, err);

    *out = (partial_prefix){ -1, file->size_bytes };
    switch (state) {
    case PLACE_UNREADABLE:
    case PLACE_BLOCKED:
        return err->code;
    case PLACE_ABSENT:
        return partial_open_prefix(at, file, out, err);
    default:
        return place_open_file(p, file, &out->fd, err);
    }
}

ckpt_code head_make(const place *p, const hub_file *file, uint64_t *need_bytes, ckpt_error *err)
{
    const partial_place at = place_partial(p, file);
    char name[NAME_BYTES];
    partial_prefix there = { -1, 0 };
    char *bytes = NULL;
    int found = 0;
    ckpt_code code;

    *need_bytes = 0;
    name_of(&at, file, name);
    if ((code = find_head(&at, name, file, &found, err)) != CKPT_OK || found)
        return code;
    *need_bytes = FIRST_BYTES;
    if ((code = open_front(p, file, &at, &there, err)) == CKPT_OK && there.bytes >= LENGTH_BYTES &&
        (code = measure(there.fd, file, need_bytes, err)) == CKPT_OK &&
        *need_bytes <= there.bytes) {
        if ((bytes = malloc(*need_bytes)) == NULL)
            code = ckpt_fail_memory(err, "a header", *need_bytes);
        else if (!read_at(there.fd, bytes, *need_bytes, 0))
            code = hub_fail_disk(errno, err, "cannot read '%s' back", file->path);
        else
            code = write_head(&at, name, file, bytes, *need_bytes, err);
        *need_bytes = 0;
    }
    free(bytes);
    if (there.fd >= 0)
        close(there.fd);
    return code;
}

/* ---- the tree of links ---- */

static char *headers_path(const place *p)
{
    char *side = file_join(place_path(p), PLACE_SIDE);
    char *out = side == NULL ? NULL : file_join(side, "shape");

    free(side);
    return out;
}

static ckpt_code link_file(const place *p, const char *headers_dir, const hub_file *file,
                           ckpt_error *err)
{
    const partial_place at = place_partial(p, file);
    char name[NAME_BYTES];
    char *from = file_join(headers_dir, file->path);
    char *side = file_join(place_path(p), PLACE_SIDE);
    char *to = NULL;
    ckpt_code code = CKPT_OK;

    if (side != NULL && head_is_shard(file)) {
        name_of(&at, file, name);
        to = file_join(side, name);
    } else if (side != NULL) {
        to = file_join(place_path(p), file->path);
    }
    if (code == CKPT_OK && (from == NULL || to == NULL))
        code = ckpt_fail_memory(err, "a path", strlen(file->path));
    if (code == CKPT_OK && (code = file_make_parents(from, err)) == CKPT_OK &&
        symlink(to, from) != 0)
        code = hub_fail_disk(errno, err, "cannot link '%s'", from);
    free(from);
    free(side);
    free(to);
    return code;
}

ckpt_code head_make_headers_dir(const place *p, const hub_listing *listing, char **path,
                          ckpt_error *err)
{
    ckpt_code code;

    if ((*path = headers_path(p)) == NULL)
        return ckpt_fail_memory(err, "a path", 0);
    if ((code = file_remove_tree(*path, err)) == CKPT_OK)
        code = file_make_directory(*path, err);
    for (size_t i = 0; i < listing->count && code == CKPT_OK; i++)
        if (listing->files[i].is_selected)
            code = link_file(p, *path, &listing->files[i], err);
    return code;
}

ckpt_code head_remove_all(const place *p, const hub_listing *listing, ckpt_error *err)
{
    char *headers_dir = headers_path(p);
    ckpt_code code = headers_dir == NULL ? ckpt_fail_memory(err, "a path", 0)
                                   : file_remove_tree(headers_dir, err);

    free(headers_dir);
    for (size_t i = 0; i < listing->count && code == CKPT_OK; i++)
        if (head_is_shard(&listing->files[i])) {
            const partial_place at = place_partial(p, &listing->files[i]);
            char name[NAME_BYTES];

            name_of(&at, &listing->files[i], name);
            partial_discard(&at, &listing->files[i]);
            code = tree_remove(at.side_fd, name, err);
        }
    return code;
}
