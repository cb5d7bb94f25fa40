/* download_side.c: the listings and records beside the files. */
#include "download_side.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "download_tree.h"
#include "libckpt/array.h"
#include "libckpt/json.h"

enum { VERIFIED_BYTES_MAX = 1 << 30, LINE_BYTES = PLACE_PATH_BYTES + 200 };

static int64_t mtime_ns(const struct stat *status)
{
    return (int64_t)status->st_mtim.tv_sec * 1000000000 + status->st_mtim.tv_nsec;
}

/* ---- records of verified files ---- */

/* Parse one line, without its newline, into the records, which have room. A torn line lacks the
 * last word. */
static ckpt_code take_record(place *p, char *line, ckpt_error *err)
{
    place_record_entry record;
    char hash[65];
    int begin = 0;
    char *end = strrchr(line, '\t');
    const char *path;
    uint64_t index;
    int added;

    if (end == NULL || strcmp(end, "\tok") != 0)
        return CKPT_OK;
    *end = '\0';
    if (sscanf(line, "%" SCNu64 "\t%" SCNd64 "\t%" SCNu64 "\t%64[0-9a-f]\t%n", &record.size,
               &record.mtime_ns, &record.inode, hash, &begin) != 4 || begin == 0)
        return CKPT_OK;
    path = arena_strdup(&p->memory, line + begin, strlen(line + begin));
    record.hash = arena_strdup(&p->memory, hash, strlen(hash));
    if (path == NULL || record.hash == NULL)
        return ckpt_fail_memory(err, "records of verified files", strlen(line));
    added = table_add(&p->verified, path, p->record_count);
    if (added == TABLE_NO_MEMORY)
        return ckpt_fail_memory(err, "records of verified files", strlen(line));
    if (added == TABLE_PRESENT && table_find(&p->verified, path, &index))
        p->records[index] = record;
    else
        p->records[p->record_count++] = record;
    return CKPT_OK;
}

static ckpt_code read_records(place *p, FILE *in, ckpt_error *err)
{
    char *line = NULL;
    size_t line_room = 0;
    place_record_entry *records;
    ckpt_code code = CKPT_OK;

    errno = 0;
    while (code == CKPT_OK && getline(&line, &line_room, in) > 0) {
        char *newline = strchr(line, '\n');

        if (newline == NULL)
            break;
        *newline = '\0';
        records = array_room_counted(p->records, p->record_count, sizeof *records,
                                     "records of verified files", err);
        if (records == NULL) {
            code = CKPT_E_MEMORY;
            break;
        }
        p->records = records;
        code = take_record(p, line, err);
    }
    if (code == CKPT_OK && !feof(in))        /* out of memory, or no bytes of a file that has
                                              * some */
        code = hub_fail_disk(errno, err, "cannot read 'verified'");
    free(line);
    return code;
}

ckpt_code place_load_verified(place *p, ckpt_error *err)
{
    const int flags = p->options.dry_run ? O_RDONLY : O_RDWR | O_CREAT | O_APPEND;
    struct stat status;
    FILE *in;
    char last = '\n';
    int copy;
    ckpt_code code;

    if (p->side_fd < 0)
        return CKPT_OK;
    code = p->options.dry_run
               ? tree_open_if_there(p->side_fd, "verified", flags, &p->verified_fd, err)
               : tree_open_file(p->side_fd, "verified", flags, &p->verified_fd, err);
    if (code != CKPT_OK || p->verified_fd < 0)
        return code;
    if (fstat(p->verified_fd, &status) != 0)
        return hub_fail_disk(errno, err, "cannot stat 'verified'");
    if (status.st_size > VERIFIED_BYTES_MAX)
        return hub_fail(HUB_OTHER, err, "'verified' is too large: expected at most %d bytes, got %"
                        PRIu64, VERIFIED_BYTES_MAX, (uint64_t)status.st_size);
    copy = fcntl(p->verified_fd, F_DUPFD_CLOEXEC, 3);
    in = copy < 0 ? NULL : fdopen(copy, "r");
    if (in == NULL) {
        code = hub_fail_disk(errno, err, "cannot read 'verified'");
        if (copy >= 0)
            close(copy);
        return code;
    }
    code = read_records(p, in, err);
    fclose(in);
    /* A torn last line must not merge with the next one. */
    if (status.st_size > 0 &&
        pread(p->verified_fd, &last, 1, status.st_size - 1) != 1)
        last = '\0';
    if (code == CKPT_OK && !p->options.dry_run && last != '\n' &&
        write(p->verified_fd, "\n", 1) != 1)
        code = hub_fail_disk(errno, err, "cannot write 'verified'");
    return code;
}

int place_is_recorded(const place *p, const char *target, const char *hash,
                      const struct stat *status)
{
    const place_record_entry *r;
    uint64_t index;

    if (!table_find(&p->verified, target, &index))
        return 0;
    r = &p->records[index];
    return r->size == (uint64_t)status->st_size && r->mtime_ns == mtime_ns(status) &&
           r->inode == (uint64_t)status->st_ino && strcmp(r->hash, hash) == 0;
}

ckpt_code place_append_record(place *p, const char *target, const char *hash,
                              const struct stat *status, ckpt_error *err)
{
    char line[LINE_BYTES];
    ssize_t put = 0;
    int size;

    if (place_is_recorded(p, target, hash, status))
        return CKPT_OK;
    size = snprintf(line, sizeof line,
                    "%" PRIu64 "\t%" PRId64 "\t%" PRIu64 "\t%s\t%s\tok\n",
                    (uint64_t)status->st_size, mtime_ns(status), (uint64_t)status->st_ino, hash,
                    target);
    if (size < 0 || (size_t)size >= sizeof line ||
        (put = write(p->verified_fd, line, (size_t)size)) != size)
        return hub_fail_disk(put < 0 ? errno : ENOSPC, err, "cannot write 'verified'");
    return CKPT_OK;
}

/* ---- listings ---- */

static void put_listing(json_writer *w, const place *p)
{
    const hub_listing *listing = p->options.listing;
    const hub *h = p->options.h;

    json_put_object(w);
    json_member_u64(w, "version", 1);
    json_member_string(w, "hub", h->kind->name);
    json_member_string(w, "endpoint", h->endpoint);
    json_member_string(w, "repo", h->options.repo);
    json_member_string(w, "type", h->options.type);
    json_member_string(w, "revision", h->options.revision);
    json_member_string(w, "commit", listing->commit[0] == '\0' ? NULL : listing->commit);
    json_member_array(w, "files");
    for (size_t i = 0; i < listing->count; i++) {
        const hub_file *file = &listing->files[i];

        json_put_object(w);
        json_member_string(w, "path", file->path);
        json_member_u64(w, "size", file->size_bytes);
        json_member_string(w, "algorithm", hub_algorithm_name(file->algorithm));
        json_member_string(w, "hash", file->hash);
        json_member_bool(w, "selected", file->is_selected);
        json_put_object_end(w);
    }
    json_put_array_end(w);
    json_put_object_end(w);
}

/* The Python client's own form. */
static void put_tree(json_writer *w, const place *p)
{
    const hub_listing *listing = p->options.listing;

    json_put_object(w);
    json_member_u64(w, "format_version", 1);
    json_member_object(w, "files");
    for (size_t i = 0; i < listing->count; i++) {
        const hub_file *file = &listing->files[i];

        json_member_object(w, file->path);
        json_member_u64(w, "size", file->size_bytes);
        json_member_string(w, "blob_id", file->oid);
        if (file->algorithm == HUB_SHA256) {
            json_member_string(w, "lfs_sha256", file->hash);
            json_member_u64(w, "lfs_size", file->size_bytes);
        }
        if (file->xet_hash != NULL)
            json_member_string(w, "xet_hash", file->xet_hash);
        json_put_object_end(w);
    }
    json_put_object_end(w);
    json_put_object_end(w);
}

static ckpt_code write_json(place *p, int folder, const char *path,
                            void (*put)(json_writer *, const place *), ckpt_error *err)
{
    const tree_target to = { folder, path, p->side_fd };
    tree_out out;
    json_writer w;

    tree_begin(&to, &out);
    json_writer_begin(&w, tree_put, &out, 0);
    put(&w, p);
    /* A value that JSON cannot represent failed, not the file. */
    if (!json_writer_end(&w) && out.error == 0)
        out.error = EILSEQ;
    return tree_commit(&to, &out, 0, err);
}

/* If "a" and "A" are the same file, the second would replace the first. */
static ckpt_code check_case(const place *p, ckpt_error *err)
{
    const char *twins[2];
    struct stat lower;
    struct stat upper;
    ckpt_code code;

    if ((code = tree_stat(p->side_fd, "lock", &lower, err)) != CKPT_OK ||
        (code = tree_stat(p->side_fd, "LOCK", &upper, err)) != CKPT_OK || lower.st_mode == 0 ||
        lower.st_ino != upper.st_ino)
        return code;
    if ((code = hub_listing_twins(p->options.listing, twins, err)) != CKPT_OK || twins[0] == NULL)
        return code;
    return hub_fail(HUB_DISK, err, "'%s' and '%s' differ only in case and are the same name on the "
                    "file system of '%s'", twins[0], twins[1], p->root);
}

static ckpt_code write_text(const place *p, const char *path, const char *text, ckpt_error *err)
{
    return tree_write(&(tree_target){ p->root_fd, path, p->side_fd }, text, 0, err);
}

ckpt_code place_begin(place *p, ckpt_error *err)
{
    static const char tag[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
                              "# This file marks a folder that can be made again.\n";
    char path[PLACE_PATH_BYTES];
    const char *commit = p->options.listing->commit;
    ckpt_code code;

    if ((code = check_case(p, err)) != CKPT_OK)
        return code;
    if (p->is_cache)
        place_format(path, "listing-%s.json%s", commit, "");
    else
        place_format(path, "listing.json%s%s", "", "");
    if ((code = write_json(p, p->side_fd, path, put_listing, err)) != CKPT_OK || !p->is_hf)
        return code;
    if (!p->is_cache &&
        ((code = write_text(p, ".cache/huggingface/.gitignore", "*", err)) != CKPT_OK ||
         (code = write_text(p, ".cache/huggingface/CACHEDIR.TAG", tag, err)) != CKPT_OK))
        return code;
    if (p->options.listing->is_redacted)
        return CKPT_OK;
    place_format(path, p->is_cache ? "trees/%s.json%s" : ".cache/huggingface/trees/%s.json%s",
                 commit, "");
    return write_json(p, p->root_fd, path, put_tree, err);
}

/* Sync the renamed files' names and sizes here, all at once. */
ckpt_code place_end(place *p, ckpt_error *err)
{
    const hub_options *h = &p->options.h->options;
    char path[PLACE_PATH_BYTES];
    ckpt_code code = CKPT_OK;

    if (p->is_cache && strcmp(h->revision, p->options.listing->commit) != 0 &&
        hub_path_complaint(h->revision) == NULL && place_format(path, "refs/%s%s", h->revision, ""))
        code = tree_write(&(tree_target){ p->root_fd, path, p->side_fd },
                          p->options.listing->commit, 1, err);
    if (code == CKPT_OK && p->options.hf_refs && p->is_hf && !p->is_cache)
        code = place_write_ref(p, err);
    if (code == CKPT_OK && syncfs(p->root_fd) != 0)
        code = hub_fail_disk(errno, err, "cannot sync '%s'", p->root);
    return code;
}
