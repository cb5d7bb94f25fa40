/* Things that people give for a checkpoint. */
#include "recognise.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "text.h"

/* ---- by the first bytes ---- */

static const struct {
    const char *bytes;
    size_t count;
    const char *what;
} heads[] = {
    { "version https://git-lfs", 23,
      "is a Git LFS pointer, not the file itself: run git lfs pull, or fetch it with "
      "ckpt-download" },
    { "GGUF", 4, "is a GGUF file, which is not read: name the safetensors checkpoint it was made "
                 "from" },
    { "PK\003\004", 4, "is a zip archive, as torch.save writes it, which is not read: save the "
                       "tensors as safetensors" },
    { "\200\002", 2, "is a Python pickle, as older torch.save writes it, which is not read: save "
                     "the tensors as safetensors" },
    { "\200\003", 2, "is a Python pickle, which is not read: save the tensors as safetensors" },
    { "\200\004", 2, "is a Python pickle, which is not read: save the tensors as safetensors" },
    { "\200\005", 2, "is a Python pickle, which is not read: save the tensors as safetensors" },
    { "\211HDF\r\n", 6, "is an HDF5 file, which is not read: save the tensors as safetensors" },
    { "\223NUMPY", 6, "is a NumPy array, not a checkpoint" },
    { "\037\213", 2, "is compressed by gzip: unpack it first" },
    { "\050\265\057\375", 4, "is compressed by zstd: unpack it first" },
    { "<!DOCTYPE", 9, "is a web page, not the file: a download that went wrong" },
    { "<!doctype", 9, "is a web page, not the file: a download that went wrong" },
    { "<html", 5, "is a web page, not the file: a download that went wrong" },
};

const char *recognise_bytes(const void *bytes, size_t size)
{
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        if (size >= heads[i].count && memcmp(bytes, heads[i].bytes, heads[i].count) == 0)
            return heads[i].what;
    return NULL;
}

/* ---- by the name of a file ---- */

/* 8 bytes of a length, then JSON. */
static int is_safetensors(const unsigned char *bytes, size_t size)
{
    return size >= 10 && bytes[8] == '{' && bytes[5] == 0 && bytes[6] == 0 && bytes[7] == 0;
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

/* A file that belongs to a checkpoint: the folder is what to name. */
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
            snprintf(out, RECOGNISE_BYTES, "%s: name its folder, '%s'", names[i].what, folder);
            return 1;
        }
    return 0;
}

int recognise_path_head(const char *path, char out[RECOGNISE_BYTES])
{
    unsigned char head[64];
    const char *what = NULL;
    FILE *f;

    if ((f = fopen(path, "rb")) != NULL) {
        const size_t size = fread(head, 1, sizeof head, f);

        what = recognise_bytes(head, size);
        if (what == NULL && !text_ends_with(path, ".safetensors") && is_safetensors(head, size))
            what = "looks like a safetensors file, but is not called so: give it a name that ends "
                   "in '.safetensors'";
        fclose(f);
    }
    if (what != NULL)
        snprintf(out, RECOGNISE_BYTES, "%s", what);
    return what != NULL;
}

/* ---- by what is in a folder ---- */

static int has(const char *folder, const char *name)
{
    char *path = file_join(folder, name);
    const int found = path != NULL && file_exists(path);

    free(path);
    return found;
}

/* The first name, in the order of bytes, that ends in `end`; 0 when there is none. */
static int find_name(const char *folder, const char *end, char out[256])
{
    DIR *stream = opendir(folder);
    const struct dirent *entry;
    int found = 0;

    while (stream != NULL && (entry = readdir(stream)) != NULL) {
        if (entry->d_name[0] == '.' ||
            (strcmp(entry->d_name, end) != 0 && !text_ends_with(entry->d_name, end)) ||
            (found && strcmp(entry->d_name, out) >= 0))
            continue;
        snprintf(out, 256, "%s", entry->d_name);
        found = 1;
    }
    if (stream != NULL)
        closedir(stream);
    return found;
}

/* models--OWNER--NAME of a hub's cache: the files are in a snapshot. */
static int recognise_cache(const char *path, char out[RECOGNISE_BYTES])
{
    char revision[256] = "REVISION";
    char *snapshots;

    if (!has(path, "snapshots") || (!has(path, "blobs") && !has(path, "refs")))
        return 0;
    if ((snapshots = file_join(path, "snapshots")) != NULL)
        find_name(snapshots, "", revision);
    free(snapshots);
    snprintf(out, RECOGNISE_BYTES,
             "is a repository in the cache of a hub: name a snapshot, 'snapshots/%.64s'",
             revision);
    return 1;
}

static int recognise_folder(const char *path, char out[RECOGNISE_BYTES])
{
    static const struct {
        const char *end;
        const char *what;
    } ends[] = {
        { "model_index.json", "is a diffusers pipeline: name the folder of one of its models, "
                              "such as 'transformer' or 'unet'" },
        { ".gguf", "is a GGUF file, which is not read: name the safetensors checkpoint that it "
                   "was made from" },
        { ".distcp", "is the data of a torch_dist checkpoint, but '.metadata' is missing: it was "
                     "not written to its end, or not copied whole" },
        { ".bin", "is a PyTorch file, which is not read: save the model as safetensors" },
        { ".pth", "is a PyTorch file, which is not read: save the model as safetensors" },
        { ".pt", "is a PyTorch file, which is not read: save the model as safetensors" },
        { ".ckpt", "is a PyTorch file, which is not read: save the model as safetensors" },
        { ".h5", "is a TensorFlow file, which is not read: save the model as safetensors" },
        { ".msgpack", "is a Flax file, which is not read: save the model as safetensors" },
    };
    char name[256];

    if (recognise_cache(path, out))
        return 1;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (find_name(path, ends[i].end, name)) {
            if (i == 0)
                snprintf(out, RECOGNISE_BYTES, "%s", ends[i].what);
            else
                snprintf(out, RECOGNISE_BYTES, "has no safetensors: '%.100s' %s", name,
                         ends[i].what);
            return 1;
        }
    if (has(path, "config.json"))
        snprintf(out, RECOGNISE_BYTES, "has a config.json, but no weights: fetch them with "
                                       "ckpt-download");
    else if (has(path, "mp_rank_00") || has(path, "mp_rank_00_000"))
        snprintf(out, RECOGNISE_BYTES, "is a Megatron checkpoint in the older format 'torch', "
                                       "which is not read: save it as torch_dist");
    else
        return 0;
    return 1;
}

int recognise_is_adapter(const char *path)
{
    return has(path, "adapter_config.json") || has(path, "adapter_model.safetensors");
}

/* ---- by a path that does not exist ---- */

static int is_word(const char *text, size_t size)
{
    if (size == 0 || size > 96 || !isalnum((unsigned char)text[0]))
        return 0;
    for (size_t i = 0; i < size; i++)
        if (!isalnum((unsigned char)text[i]) && strchr("-_.", text[i]) == NULL)
            return 0;
    return 1;
}

/* The length of OWNER/NAME at the beginning of a text, up to its end or one of "/@?#"; or 0. */
static size_t repository_bytes(const char *text)
{
    const char *slash = strchr(text, '/');
    size_t name;

    if (slash == NULL || !is_word(text, (size_t)(slash - text)))
        return 0;
    name = strcspn(slash + 1, "/@?#");
    return is_word(slash + 1, name) ? (size_t)(slash + 1 - text) + name : 0;
}

static int recognise_url(const char *path, char out[RECOGNISE_BYTES])
{
    const char *rest = strstr(path, "://");
    size_t host;
    size_t size;

    if (rest == NULL || !is_word(path, (size_t)(rest - path)))
        return 0;
    rest += strlen("://");
    host = strncmp(path, "http", 4) == 0 ? strcspn(rest, "/") : 0;
    rest += host + (host > 0 && rest[host] == '/');
    size = strncmp(path, "hf:", 3) == 0 || host > 0 ? repository_bytes(rest) : 0;
    if (size > 0)
        snprintf(out, RECOGNISE_BYTES,
                 "is a URL, and only local files are read: fetch it with ckpt-download %.*s",
                 (int)size, rest);
    else
        snprintf(out, RECOGNISE_BYTES, "is a URL, and only local files are read: fetch it first");
    return 1;
}

static int recognise_missing(const char *path, char out[RECOGNISE_BYTES])
{
    const char *colon = strchr(path, ':');
    char folder[256];
    size_t size;

    if (recognise_url(path, out))
        return 1;
    if (colon != NULL && strchr(path, '/') > colon && is_word(path, (size_t)(colon - path))) {
        snprintf(out, RECOGNISE_BYTES,
                 "does not exist; a path on another machine is not read: copy it here first");
        return 1;
    }
    folder_of(path, folder);
    size = repository_bytes(path);
    if (size == 0 || (path[size] != '\0' && path[size] != '@') || file_exists(folder))
        return 0;
    snprintf(out, RECOGNISE_BYTES,
             "does not exist; a repository of a hub is fetched first: ckpt-download %.*s",
             (int)size, path);
    return 1;
}

static int recognise_link(const char *path, char out[RECOGNISE_BYTES])
{
    char target[256];
    const ssize_t size = readlink(path, target, sizeof target - 1);

    if (size < 0)
        return 0;
    target[size] = '\0';
    snprintf(out, RECOGNISE_BYTES, "is a link to '%s', which does not exist", target);
    return 1;
}

int recognise_path(const char *path, char out[RECOGNISE_BYTES])
{
    struct stat info;

    if (!file_exists(path))
        return recognise_missing(path, out);
    if (stat(path, &info) != 0)
        return recognise_link(path, out);
    if (file_is_directory(path))
        return recognise_folder(path, out);
    return S_ISREG(info.st_mode) &&
           (recognise_file_name(path, out) || recognise_path_head(path, out));
}
