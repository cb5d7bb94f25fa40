/* download_ending.c: a line "ckpt-ending 1 KEY DEVICE INODE PATH", and the names of files. */
#include "download_ending.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "download_root.h"
#include "download_tree.h"
#include "libckpt/file.h"
#include "libckpt/journal.h"
#include "libckpt/sha256.h"

static const char note_name[] = "ending";
enum { NOTE_BYTES_MAX = 1 << 28 };

static ckpt_code add_text(sha256 *hash, const char *text, ckpt_error *err)
{
    return sha256_add(hash, text, strlen(text) + 1, err);
}

/* A key of the command, its working folder and the hashes of its files. */
static ckpt_code add_all(sha256 *hash, const ending *e, ckpt_error *err)
{
    char *folder = getcwd(NULL, 0);
    ckpt_code code = folder == NULL ? ckpt_fail_memory(err, "a path", 0)
                                    : add_text(hash, folder, err);

    free(folder);
    for (char **word = e->words; *word != NULL && code == CKPT_OK; word++)
        code = add_text(hash, *word, err);
    for (size_t i = 0; i < e->listing->count && code == CKPT_OK; i++)
        if (e->listing->files[i].is_selected &&
            (code = add_text(hash, e->listing->files[i].path, err)) == CKPT_OK)
            code = add_text(hash, e->listing->files[i].hash, err);
    return code;
}

static ckpt_code key_of(const ending *e, char out[SHA256_HEX], ckpt_error *err)
{
    sha256 *hash;
    ckpt_code code = sha256_begin(&hash, err);

    if (code != CKPT_OK)
        return code;
    if ((code = add_all(hash, e, err)) == CKPT_OK)
        return sha256_end(hash, out, err);
    sha256_abort(hash);
    return code;
}

ckpt_code ending_write(const ending *e, const uint8_t *is_source, const char *path,
                       ckpt_error *err)
{
    char key[SHA256_HEX];
    char head[SHA256_HEX + 80];
    const tree_target to = { e->where->side_fd, note_name, e->where->side_fd };
    struct stat status;
    tree_out out;
    ckpt_code code = key_of(e, key, err);

    if (code != CKPT_OK)
        return code;
    if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode))
        return hub_fail(HUB_OTHER, err, "'%s' is not the output folder of a conversion", path);
    tree_begin(&to, &out);
    snprintf(head, sizeof head, "ckpt-ending 1 %s %" PRIu64 " %" PRIu64 " ", key,
             (uint64_t)status.st_dev, (uint64_t)status.st_ino);
    tree_put(&out, head, strlen(head));
    tree_put(&out, path, strlen(path));
    tree_put(&out, "\n", 1);
    for (size_t i = 0; i < e->listing->count; i++)
        if (is_source[i]) {
            tree_put(&out, e->listing->files[i].path, strlen(e->listing->files[i].path));
            tree_put(&out, "\n", 1);
        }
    return tree_commit(&to, &out, 1, err);
}

/* The folder is the one recorded, and no run has to resume in it. */
static ckpt_code check_result(const char *path, uint64_t device, uint64_t inode, int *found,
                              ckpt_error *err)
{
    char *journal = file_join(path, journal_name);
    struct stat status;
    const int is_open = journal == NULL || file_exists(journal);
    const ckpt_code code =
        journal == NULL ? ckpt_fail_memory(err, "a path", strlen(path)) : CKPT_OK;

    free(journal);
    *found = !is_open && stat(path, &status) == 0 && S_ISDIR(status.st_mode) &&
             (uint64_t)status.st_dev == device && (uint64_t)status.st_ino == inode;
    return code;
}

/* The whole file, yours to free; NULL without an error: there is none. */
static ckpt_code read_note(const ending *e, char **out, ckpt_error *err)
{
    struct stat status;
    size_t size;
    int fd;
    ckpt_code code = tree_open_if_there(e->where->side_fd, note_name, O_RDONLY, &fd, err);

    *out = NULL;
    if (code != CKPT_OK || fd < 0)
        return code;
    if (fstat(fd, &status) != 0)
        code = hub_fail_disk(errno, err, "cannot stat '%s'", note_name);
    else if (status.st_size > NOTE_BYTES_MAX)
        code = hub_fail(HUB_OTHER, err, "'%s' is too large: expected at most %d bytes, got %"
                        PRIu64, note_name, NOTE_BYTES_MAX, (uint64_t)status.st_size);
    else if ((*out = calloc((size_t)status.st_size + 1, 1)) == NULL)
        code = ckpt_fail_memory(err, "a note", (uint64_t)status.st_size);
    else
        code = tree_read(fd, note_name, *out, (size_t)status.st_size, &size, err);
    close(fd);
    return code;
}

/* The files named by the lines after the first. */
static void take_names(const ending *e, char *lines, uint8_t *is_source)
{
    char *rest = NULL;

    for (char *line = strtok_r(lines, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        const hub_file *file = hub_listing_find(e->listing, line);

        if (file != NULL)
            is_source[file - e->listing->files] = 1;
    }
}

ckpt_code ending_find(const ending *e, uint8_t *is_source, int *found, ckpt_error *err)
{
    char key[SHA256_HEX];
    char noted[SHA256_HEX];
    char *text;
    char *newline;
    uint64_t device;
    uint64_t inode;
    int begin = 0;
    ckpt_code code;

    *found = 0;
    if ((code = read_note(e, &text, err)) != CKPT_OK || text == NULL ||
        (code = key_of(e, key, err)) != CKPT_OK)
        goto out;
    newline = strchr(text, '\n');
    if (newline == NULL ||
        sscanf(text, "ckpt-ending 1 %64[0-9a-f] %" SCNu64 " %" SCNu64 " %n", noted, &device, &inode,
               &begin) != 3 || begin == 0 || text + begin > newline || strcmp(noted, key) != 0)
        goto out;
    *newline = '\0';
    if ((code = check_result(text + begin, device, inode, found, err)) == CKPT_OK && *found)
        take_names(e, newline + 1, is_source);
out:
    free(text);
    return code;
}

ckpt_code ending_remove(const ending *e, ckpt_error *err)
{
    return tree_remove(e->where->side_fd, note_name, err);
}
