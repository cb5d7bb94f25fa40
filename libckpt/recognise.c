/* Recognises files and folders that are given in place of a checkpoint. */
#include "recognise.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "nearest.h"
#include "size.h"
#include "text.h"

/* 1 when hubs allow the text as the name of an owner or a repository. */
static int is_word(const char *text, size_t size)
{
    if (size == 0 || size > 96 || !isalnum((unsigned char)text[0]))
        return 0;
    for (size_t i = 0; i < size; i++)
        if (!isalnum((unsigned char)text[i]) && strchr("-_.", text[i]) == NULL)
            return 0;
    return 1;
}

/* ---- by the first bytes ---- */

#define MANIFEST "is a manifest, not a checkpoint: ckpt-verify check --manifest checks with it"

static const struct {
    const char *bytes;
    size_t count;
    const char *what;
} heads[] = {
    { "version https://git-lfs", 23,
      "is a Git LFS pointer, not the file itself: run git lfs pull, or fetch it with "
      "ckpt-download" },
    { "GGUF", 4, "looks like a GGUF file: rename it so that its name ends in '.gguf'" },
    { "PK\003\004", 4, "is a torch.save archive, which is not supported: save it as safetensors" },
    { "\200\002", 2, "is an old torch.save pickle, which is not supported: save it as "
        "safetensors" },
    { "\200\003", 2, "is a Python pickle, which is not supported: save it as safetensors" },
    { "\200\004", 2, "is a Python pickle, which is not supported: save it as safetensors" },
    { "\200\005", 2, "is a Python pickle, which is not supported: save it as safetensors" },
    { "\211HDF\r\n", 6, "is an HDF5 file, which is not supported: save it as safetensors" },
    { "\223NUMPY", 6, "is a NumPy array, not a checkpoint" },
    { "{\n \"_type\": \"https://in-toto", 27, "is a certificate, not a checkpoint: ckpt-verify "
        "certificate checks with it" },
    { "{\"schema\":\"ckpt-manifest", 24, MANIFEST },
    { "{\n \"schema\": \"ckpt-manifest", 27, MANIFEST },
    { "{\"schema\":\"ckpt-", 16, "is a JSON document of ckpt, not a checkpoint" },
    { "{\n \"schema\": \"ckpt-", 19, "is a JSON document of ckpt, not a checkpoint" },
    { "\037\213", 2, "is compressed with gzip: decompress it first" },
    { "\050\265\057\375", 4, "is compressed with zstd: decompress it first" },
    { "<!DOCTYPE", 9, "is a web page instead of the file: the download failed" },
    { "<!doctype", 9, "is a web page instead of the file: the download failed" },
    { "<html", 5, "is a web page instead of the file: the download failed" },
};

/* "is a GGUF file, ..."; NULL: unknown. */
static const char *kind_of_bytes(const void *bytes, size_t size)
{
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        if (size >= heads[i].count && memcmp(bytes, heads[i].bytes, heads[i].count) == 0)
            return heads[i].what;
    return NULL;
}

ckpt_code recognise_refused(ckpt_code code, const void *bytes, size_t size, const char *subject,
                            ckpt_error *err)
{
    const char *what = code == CKPT_E_FORMAT ? kind_of_bytes(bytes, size) : NULL;

    return what == NULL ? code : ckpt_fail(err, code, "'%s' %s", subject, what);
}

/* ---- by the name of a file ---- */

/* 8 bytes of a length, then JSON. */
static int is_safetensors(const unsigned char *bytes, size_t size)
{
    return size >= 10 && bytes[8] == '{' && bytes[5] == 0 && bytes[6] == 0 && bytes[7] == 0;
}

/* An error page or message of a server in place of the file. */
static int is_text(const unsigned char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i] < 0x20 || bytes[i] > 0x7e)
            return bytes[i] == '\n' && i >= 8;
    return size >= 8;
}

/* The folder of a path: "." when it names none. */
static void folder_of(const char *path, char out[256])
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL)
        snprintf(out, 256, ".");
    else
        snprintf(out, 256, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

/* A file that belongs to a checkpoint: the user should name its folder. */
static int recognise_file_name(const char *path, char out[RECOGNISE_BYTES])
{
    static const struct {
        const char *end;
        const char *what;
    } names[] = {
        { ".index.json", "is the index of a checkpoint" },
        { "config.json", "is the configuration of a model, not the model" },
        { "latest_checkpointed_iteration.txt", "is the tracker file of a torch_dist checkpoint" },
        { ".metadata", "is the metadata of a torch_dist checkpoint" },
        { "metadata.json", "is a part of a torch_dist checkpoint" },
        { "common.pt", "is a part of a torch_dist checkpoint" },
        { ".distcp", "is one data file of a torch_dist checkpoint" },
        { "tokenizer.json", "is a tokenizer, not a model" },
    };
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    char folder[256];

    folder_of(path, folder);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i].end) == 0 || text_ends_with(name, names[i].end)) {
            snprintf(out, RECOGNISE_BYTES, "%s: use its folder, '%s'", names[i].what, folder);
            return 1;
        }
    return 0;
}

int recognise_head(const ckpt_file *file, char out[RECOGNISE_BYTES])
{
    unsigned char head[64];
    char begin[sizeof head + 1] = "";
    const size_t size = (size_t)size_min(file_size(file), sizeof head);
    const int is_called_so = text_ends_with(file_path(file), ".safetensors");
    const char *what;

    if (file_read_at(file, 0, head, size, NULL) != CKPT_OK)
        return 0;
    what = kind_of_bytes(head, size);
    if (what == NULL && !is_called_so && is_safetensors(head, size))
        what = "looks like a safetensors file: rename it so that its name ends in '.safetensors'";
    if (what == NULL && is_called_so && is_text(head, size)) {
        snprintf(out, RECOGNISE_BYTES, "is text, not tensors (a failed download?); it starts with "
                 "'%.*s'", (int)strcspn(memcpy(begin, head, size), "\n"), begin);
        return 1;
    }
    if (what != NULL)
        snprintf(out, RECOGNISE_BYTES, "%s", what);
    return what != NULL;
}

static int recognise_empty(const ckpt_file *file, char out[RECOGNISE_BYTES])
{
    if (file_size(file) > 0)
        return 0;
    snprintf(out, RECOGNISE_BYTES, "is empty: what wrote it did not finish");
    return 1;
}

static int recognise_file(const folder_place *place, char out[RECOGNISE_BYTES])
{
    ckpt_file *file = NULL;
    const int found =
        folder_open_file(place->folder, place->name, &file, NULL) == CKPT_OK &&
        (recognise_empty(file, out) || recognise_file_name(place->path, out) ||
         recognise_head(file, out));

    file_close(file, NULL);
    return found;
}

/* ---- by what is in a folder ---- */

/* The first name, in the order of bytes, that ends in `end`. */
typedef struct {
    const char *end;
    char name[256];
    int is_found;
} name_finder;

static void keep_first(name_finder *f, const char *name)
{
    if (f->is_found && strcmp(name, f->name) >= 0)
        return;
    snprintf(f->name, sizeof f->name, "%s", name);
    f->is_found = 1;
}

static int match_end(void *context, const char *name)
{
    name_finder *f = context;

    if (name[0] != '.' && (strcmp(name, f->end) == 0 || text_ends_with(name, f->end)))
        keep_first(f, name);
    return 0;
}

/* 0 when there is none, or that cannot be determined. */
static int find_name(const ckpt_folder *folder, const char *end, char out[256])
{
    name_finder finder = { .end = end };

    folder_list(folder, match_end, &finder, NULL);
    if (finder.is_found)
        memcpy(out, finder.name, sizeof finder.name);
    return finder.is_found;
}

/* The snapshot that refs/main names, if it is there. */
static int read_reference(const ckpt_folder *folder, char out[256])
{
    char snapshot[256];
    folder_text text;
    int found;

    found = folder_read_all(folder, "refs/main", 64, &text, NULL) == CKPT_OK &&
            is_word(text.bytes, strcspn(text.bytes, "\n"));
    if (found) {
        text.bytes[strcspn(text.bytes, "\n")] = '\0';
        snprintf(snapshot, sizeof snapshot, "snapshots/%s", text.bytes);
        if ((found = folder_has(folder, snapshot)))
            snprintf(out, 256, "%s", text.bytes);
    }
    folder_text_release(&text);
    return found;
}

/* models--OWNER--NAME of a hub's cache: the files are in a snapshot. */
static int recognise_cache(const ckpt_folder *folder, char out[RECOGNISE_BYTES])
{
    char revision[256] = "REVISION";
    ckpt_folder *snapshots = NULL;

    if (!folder_has(folder, "snapshots") ||
        (!folder_has(folder, "blobs") && !folder_has(folder, "refs")))
        return 0;
    if (!read_reference(folder, revision) &&
        folder_enter(folder, "snapshots", &snapshots, NULL) == CKPT_OK)
        find_name(snapshots, "", revision);
    folder_close(snapshots);
    snprintf(out, RECOGNISE_BYTES,
             "is a repository in a hub's cache: use a snapshot, 'snapshots/%.64s'",
             revision);
    return 1;
}

typedef struct {
    const ckpt_folder *root;
    name_finder first;
} below_finder;

static int match_below(void *context, const char *name)
{
    static const char *const names[] = { "config.json", ".metadata", "snapshots",
                                         "latest_checkpointed_iteration.txt" };
    below_finder *f = context;
    char below[512];
    int fits = 0;

    for (size_t i = 0; i < sizeof names / sizeof *names && name[0] != '.'; i++) {
        snprintf(below, sizeof below, "%.255s/%s", name, names[i]);
        fits |= folder_has(f->root, below);
    }
    if (fits)
        keep_first(&f->first, name);
    return 0;
}

/* The first sub-folder that looks like the checkpoint that the user meant. */
static int find_below(const ckpt_folder *folder, char out[256])
{
    below_finder finder = { .root = folder };

    folder_list(folder, match_below, &finder, NULL);
    if (finder.first.is_found)
        memcpy(out, finder.first.name, sizeof finder.first.name);
    return finder.first.is_found;
}

static int is_any(const char *name)
{
    (void)name;
    return 1;
}

static int recognise_folder(const ckpt_folder *folder, char out[RECOGNISE_BYTES])
{
    static const struct {
        const char *end;
        const char *what;
    } ends[] = {
        { "model_index.json", "is a diffusers pipeline: use the folder of one of its models, such "
                              "as 'transformer' or 'unet'" },
        { ".distcp", "is a torch_dist checkpoint without '.metadata': it was not completely "
                     "written or copied" },
        { ".bin", "is a PyTorch file, which is not supported: save the model as safetensors" },
        { ".pth", "is a PyTorch file, which is not supported: save the model as safetensors" },
        { ".pt", "is a PyTorch file, which is not supported: save the model as safetensors" },
        { ".ckpt", "is a PyTorch file, which is not supported: save the model as safetensors" },
        { ".h5", "is a TensorFlow file, which is not supported: save the model as safetensors" },
        { ".msgpack", "is a Flax file, which is not supported: save the model as safetensors" },
    };
    char name[256];
    int has_names;

    if (recognise_cache(folder, out))
        return 1;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (find_name(folder, ends[i].end, name)) {
            if (i == 0)
                snprintf(out, RECOGNISE_BYTES, "%s", ends[i].what);
            else
                snprintf(out, RECOGNISE_BYTES, "has no safetensors files: '%.100s' %s", name,
                         ends[i].what);
            return 1;
        }
    if (folder_has(folder, "config.json"))
        snprintf(out, RECOGNISE_BYTES, "has a config.json but no weights: download them with "
                                       "ckpt-download");
    else if (folder_has(folder, "mp_rank_00") || folder_has(folder, "mp_rank_00_000"))
        snprintf(out, RECOGNISE_BYTES, "is a Megatron checkpoint in the older format 'torch', "
                                       "which is not supported: save it as torch_dist");
    else if (file_is_directory(folder_path(folder)) &&   /* a web server need not list its files */
             folder_find_name(folder, is_any, &has_names, NULL) == CKPT_OK && !has_names)
        snprintf(out, RECOGNISE_BYTES, "is an empty folder");
    else if (find_below(folder, name))
        snprintf(out, RECOGNISE_BYTES, "contains folders, not a checkpoint: use one of them, such "
                                       "as '%.100s'", name);
    else
        return 0;
    return 1;
}

/* 1 only if the file certainly exists: nothing opens it afterwards and would report that it does
 * not. */
static int is_there(const ckpt_folder *folder, const char *name)
{
    ckpt_file *file = NULL;
    const int found =
        folder_has(folder, name) && folder_open_file(folder, name, &file, NULL) == CKPT_OK;

    file_close(file, NULL);
    return found;
}

int recognise_is_adapter(const ckpt_folder *folder)
{
    return is_there(folder, "adapter_config.json") ||
           is_there(folder, "adapter_model.safetensors");
}

/* ---- by a path that does not exist ---- */

/* The length of OWNER/NAME at the begin of a text, up to its end or one of "/@?#"; 0: none. */
static size_t repository_bytes(const char *text)
{
    const char *slash = strchr(text, '/');
    size_t name;

    if (slash == NULL || !is_word(text, (size_t)(slash - text)))
        return 0;
    name = strcspn(slash + 1, "/@?#");
    return is_word(slash + 1, name) ? (size_t)(slash + 1 - text) + name : 0;
}

/* The scheme that was meant by one in other letters, or with letters of "https" that are doubled,
 * swapped or forgotten; NULL: none. */
static const char *find_meant_scheme(const char *path, size_t size)
{
    static const char *const known[] = { "hf", "ms", "https" };

    if (strncmp(path, "http", size) == 0 && size >= strlen("http"))
        return NULL;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i]) == size && strncasecmp(path, known[i], size) == 0)
            return strncmp(path, known[i], size) == 0 ? NULL : known[i];
    if (strspn(path, "htpsHTPS") != size || size < 3 || strncasecmp(path, "ssh", size) == 0)
        return NULL;
    return "https";
}

static int recognise_url(const char *path, char out[RECOGNISE_BYTES])
{
    const char *rest = strstr(path, "://");
    const char *hub = "";
    const char *meant;
    size_t host;
    size_t size;

    if (rest == NULL || !is_word(path, (size_t)(rest - path)))
        return 0;
    meant = find_meant_scheme(path, (size_t)(rest - path));
    rest += strlen("://");
    if (meant != NULL || strncmp(path, "file:", 5) == 0) {
        snprintf(out, RECOGNISE_BYTES, "does not exist; did you mean '%s%s%.300s'?",
                 meant == NULL ? "" : meant, meant == NULL ? "" : "://", rest);
        return 1;
    }
    host = strncmp(path, "http", 4) == 0 ? strcspn(rest, "/") : 0;
    rest += host + (host > 0 && rest[host] == '/');
    if (host > 0 && strncmp(rest, "models/", 7) == 0) {        /* URLs of ModelScope */
        hub = " --hub modelscope";
        rest += strlen("models/");
    }
    size = strncmp(path, "hf:", 3) == 0 || host > 0 ? repository_bytes(rest) : 0;
    if (size > 0 && strncmp(rest, "datasets/", 9) != 0 && strncmp(rest, "spaces/", 7) != 0)
        snprintf(out, RECOGNISE_BYTES,
                 "is a URL, and this command reads local files only: download it with "
                 "ckpt-download%s %.*s", hub, (int)size, rest);
    else
        snprintf(out, RECOGNISE_BYTES, "is a URL that this command does not read: download it "
                 "first");
    return 1;
}

/* An address whose "https://" or whose "//" was forgotten. */
static int recognise_address(const char *path, char out[RECOGNISE_BYTES])
{
    static const char *const sites[] = { "huggingface.co/", "hf.co/", "www.modelscope.cn/",
                                         "modelscope.cn/", "modelscope.ai/" };

    if (strncmp(path, "https:/", 7) == 0 || strncmp(path, "https//", 7) == 0) {
        snprintf(out, RECOGNISE_BYTES, "does not exist; did you mean 'https://%.300s'?",
                 path + 6 + strspn(path + 6, "/"));
        return 1;
    }
    if ((strncmp(path, "hf", 2) == 0 || strncmp(path, "ms", 2) == 0) &&
        (path[2] == ':' || strncmp(path + 2, "//", 2) == 0) &&
        repository_bytes(path + 3 + strspn(path + 3, "/")) > 0) {
        snprintf(out, RECOGNISE_BYTES, "does not exist; did you mean '%.2s://%.300s'?", path,
                 path + 3 + strspn(path + 3, "/"));
        return 1;
    }
    for (size_t i = 0; i < sizeof sites / sizeof *sites; i++)
        if (strncmp(path, sites[i], strlen(sites[i])) == 0) {
            snprintf(out, RECOGNISE_BYTES, "does not exist; did you mean 'https://%.300s'?", path);
            return 1;
        }
    return 0;
}

/* What a shell, or another program, would have understood. */
static int recognise_shell(const char *path, char out[RECOGNISE_BYTES])
{
    char file[256];
    size_t size = strlen(path);

    if (strcmp(path, "-") == 0) {
        snprintf(out, RECOGNISE_BYTES, "does not exist: standard input is not read here (./- is a "
                 "file of this name)");
        return 1;
    }
    if (file_begins_at_home(path)) {
        snprintf(out, RECOGNISE_BYTES, "does not exist: a shell replaces ~ where an unquoted word "
                 "begins with it, and not after '='");
        return 1;
    }
    if (strpbrk(path, "*?$") != NULL) {
        snprintf(out, RECOGNISE_BYTES, "does not exist: a shell replaces *, ? and $ where they are "
                 "not quoted");
        return 1;
    }
    while (size > 0 && path[size - 1] == '/')
        size--;
    snprintf(file, sizeof file, "%.*s", (int)size, path);
    if (path[size] == '\0' || !file_exists(file) || file_is_directory(file))
        return 0;
    snprintf(out, RECOGNISE_BYTES, "does not exist: without the '/' at its end it is a file");
    return 1;
}

/* "a,b": the first is there. */
static int recognise_list(const char *path, char out[RECOGNISE_BYTES])
{
    char first[256];
    const size_t size = strcspn(path, ",");

    snprintf(first, sizeof first, "%.*s", (int)size, path);
    if (path[size] == '\0' || size == 0 || size >= sizeof first || !file_exists(first))
        return 0;
    snprintf(out, RECOGNISE_BYTES, "does not exist: '%s' does, paths are separate arguments",
             first);
    return 1;
}

/* A name beside it that differs by one or two letters. */
static int recognise_misspelt(const char *path, char out[RECOGNISE_BYTES])
{
    enum { ENTRIES_MAX = 4096, DISTANCE_MAX = 2, SHORTEST = 3 };
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    char folder[256] = ".";
    char best[NAME_MAX + 1] = "";
    unsigned distance = DISTANCE_MAX + 1;
    const struct dirent *entry;
    DIR *entries;

    if (slash != NULL)
        snprintf(folder, sizeof folder, "%.*s", (int)size_max(1, (size_t)(slash - path)), path);
    if (strlen(name) < SHORTEST || (entries = opendir(folder)) == NULL)
        return 0;
    for (unsigned i = 0; i < ENTRIES_MAX && (entry = readdir(entries)) != NULL; i++) {
        const unsigned far = name_distance(name, entry->d_name);

        if (entry->d_name[0] != '.' && far < distance && 2 * far <= strlen(name)) {
            distance = far;
            snprintf(best, sizeof best, "%s", entry->d_name);
        }
    }
    closedir(entries);
    if (best[0] != '\0')
        snprintf(out, RECOGNISE_BYTES, "does not exist; did you mean '%.*s%.255s'?",
                 slash == NULL ? 0 : (int)size_min(256, (size_t)(name - path)), path, best);
    return best[0] != '\0';
}

static int recognise_missing(const char *path, char out[RECOGNISE_BYTES])
{
    const char *colon = strchr(path, ':');
    const char *host;
    char owner[256];
    size_t size;

    if (recognise_url(path, out) || recognise_address(path, out) || recognise_shell(path, out) ||
        recognise_list(path, out) || recognise_misspelt(path, out))
        return 1;
    host = strchr(path, '@');
    host = host == NULL || colon == NULL || host > colon ? path : host + 1;
    /* A single letter is a Windows drive. */
    if (colon != NULL && colon - host > 1 && strchr(path, '/') > colon &&
        is_word(host, (size_t)(colon - host))) {
        snprintf(out, RECOGNISE_BYTES,
                 "does not exist; paths on other machines are not supported: copy it here first");
        return 1;
    }
    size = repository_bytes(path);
    snprintf(owner, sizeof owner, "%.*s", (int)strcspn(path, "/"), path);
    if (size == 0 || file_exists(owner) ||
        (path[size] != '\0' && path[size] != '@' && strcmp(path + size, "/") != 0))
        return 0;
    snprintf(out, RECOGNISE_BYTES,
             "does not exist; to download a repository from a hub: ckpt-download %.*s",
             (int)size, path);
    return 1;
}

/* A dangling link. */
static int recognise_link(const char *path, char out[RECOGNISE_BYTES])
{
    char target[256];
    struct stat status;
    const ssize_t size = readlink(path, target, sizeof target - 1);

    if (size < 0 || stat(path, &status) == 0)
        return 0;
    target[size] = '\0';
    snprintf(out, RECOGNISE_BYTES, "is a link to '%s', which does not exist", target);
    return 1;
}

/* A path that names neither a file nor a folder. */
static int recognise_special(const char *path, char out[RECOGNISE_BYTES])
{
    struct stat status;

    if (stat(path, &status) != 0 || S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))
        return 0;
    snprintf(out, RECOGNISE_BYTES, "is a %s, not a file or folder",
             S_ISFIFO(status.st_mode) ? "named pipe" : S_ISSOCK(status.st_mode) ? "socket"
                                                                               : "device");
    return 1;
}

int recognise_place(const folder_place *place, char out[RECOGNISE_BYTES])
{
    if (place->name == NULL)
        return recognise_folder(place->folder, out);
    if (!folder_has(place->folder, place->name))
        return recognise_missing(place->path, out);
    return recognise_special(place->path, out) || recognise_link(place->path, out) ||
           recognise_file(place, out);
}
