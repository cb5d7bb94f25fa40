/* time_guess.c: how long a command will take, as --dry-run tells it. */
#include "time_guess.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/clock.h"
#include "libckpt/machine.h"
#include "libckpt/remote/remote.h"
#include "libckpt/size.h"
#include "libckpt/text.h"

enum {
    CHUNK_BYTES = 1 << 20,
    CHUNKS_MAX = TIME_SAMPLE_BYTES_MAX / CHUNK_BYTES,
    LOOKED_AT_MAX = 256              /* files of a folder */
};
#define SAMPLE_SECONDS (1.0 / 3)

/* CPU seconds of user and system for each GB that is read or written. Measured on one x86-64 server
 * with AVX-512, files in memory (tmpfs), no --verify: casts to BF16, GGUF and other files 0.46 to
 * 0.65, casts to FP8 0.74, four fifths of it the system's copying; packing FP8 and FP4 2.7 for each
 * GB that is packed. Other processors were not measured. */
static const double cpu_rates[TIME_WORK_COUNT] = {
    [TIME_COPY] = 0.5,
    [TIME_PACK] = 2.6,
};

typedef struct {
    double seconds;
    uint64_t bytes;
} sample;

/* Files of an input that are large enough to be sampled. */
typedef struct {
    size_t items[LOOKED_AT_MAX];     /* in the list of the folder's files */
    size_t count;
} large_files;

static void read_chunk(const ckpt_file *file, uint64_t offset, void *buffer, sample *out)
{
    const size_t size = (size_t)size_min(CHUNK_BYTES, file_size(file) - offset);
    const double begin = clock_seconds();
    ckpt_error err;

    if (file_read_at(file, offset, buffer, size, &err) == CKPT_OK) {
        out->seconds += clock_seconds() - begin;
        out->bytes += size;
    }
}

/* Read at most chunk_count chunks, spread over the file. */
static void sample_file(const ckpt_file *file, size_t chunk_count, void *buffer, sample *out)
{
    const size_t count = (size_t)size_min(chunk_count, file_size(file) / CHUNK_BYTES);
    /* Elsewhere each time: what an earlier dry run has read is in memory. */
    const double now = clock_seconds();
    const double phase = now - (double)(uint64_t)now;

    for (size_t i = 0; i < count && out->seconds < SAMPLE_SECONDS; i++)
        read_chunk(file, (uint64_t)(((double)i + phase) / (double)count *
                                    (double)file_size(file)), buffer, out);
}

static ckpt_file *open_large(const ckpt_folder *folder, const char *name)
{
    ckpt_file *file = NULL;
    ckpt_error err;

    if (folder_open_file(folder, name, &file, &err) == CKPT_OK && file_size(file) >= CHUNK_BYTES)
        return file;
    file_close(file, NULL);
    return NULL;
}

static void find_large(const ckpt_folder *folder, const file_list *names, large_files *out)
{
    const size_t step = names->count / LOOKED_AT_MAX + 1;

    out->count = 0;
    for (size_t i = 0; i < names->count; i += step) {
        ckpt_file *file = open_large(folder, names->names[i]);

        if (file != NULL)
            out->items[out->count++] = i;
        file_close(file, NULL);
    }
}

static void sample_files(const ckpt_folder *folder, const file_list *names, void *buffer,
                         sample *out)
{
    large_files large;

    find_large(folder, names, &large);
    const size_t step = large.count / CHUNKS_MAX + 1;
    const size_t picked_count = (large.count + step - 1) / step;

    for (size_t i = 0; i < large.count && out->seconds < SAMPLE_SECONDS; i += step) {
        ckpt_file *file = open_large(folder, names->names[large.items[i]]);

        if (file != NULL)
            sample_file(file, CHUNKS_MAX / picked_count, buffer, out);
        file_close(file, NULL);
    }
}

static void sample_place(const folder_place *place, void *buffer, sample *out)
{
    file_list names = { NULL, 0 };
    ckpt_error err;
    const ckpt_code code = place->name == NULL
                               ? place->folder->ops->list_tree(place->folder, &names, &err)
                               : file_list_add(&names, place->name, &err);

    if (code == CKPT_OK)
        sample_files(place->folder, &names, buffer, out);
    file_list_free(&names);
}

/* The first input that is on a disk stands for all: they are mostly on one. No tile is in memory
 * during a dry run, so that the buffer is within the limit of memory. */
static sample take_sample(const time_plan *plan)
{
    sample out = { 0, 0 };
    void *buffer = malloc(CHUNK_BYTES);

    for (size_t i = 0; buffer != NULL && i < plan->path_count && out.bytes == 0; i++) {
        folder_place place = { NULL, NULL, NULL };
        ckpt_error err;

        if (strcmp(plan->paths[i], "-") != 0 && !remote_is_url(plan->paths[i]) &&
            folder_open_place(plan->paths[i], &place, &err) == CKPT_OK)
            sample_place(&place, buffer, &out);
        folder_place_release(&place);
    }
    free(buffer);
    return out;
}

time_guess time_guess_make(const time_plan *plan, const cli_common *common)
{
    const double bytes = (double)plan->read_bytes + (double)plan->write_bytes;
    const sample taken = take_sample(plan);
    time_guess guess = {
        .cpu_seconds = bytes * 1e-9 * cpu_rates[plan->work],
        .thread_count = common->thread_count == 0 ? machine_cores()
                                                  : (unsigned)common->thread_count,
        .sample_bytes = taken.bytes,
    };

    if (taken.bytes > 0 && taken.seconds > 0) {
        guess.sample_rate = (double)taken.bytes / taken.seconds;
        guess.disk_seconds = bytes / guess.sample_rate;
    }
    guess.seconds = guess.cpu_seconds / guess.thread_count;
    if (guess.seconds < guess.disk_seconds)
        guess.seconds = guess.disk_seconds;
    return guess;
}

void time_guess_print(const time_guess *guess)
{
    char rate[CLI_SIZE_TEXT_BYTES];
    char size[CLI_SIZE_TEXT_BYTES];
    char time[CLI_TIME_TEXT_BYTES];

    cli_time_text((uint64_t)guess->seconds + 1, time);
    cli_size_text((uint64_t)guess->sample_rate, rate);
    cli_size_text(guess->sample_bytes, size);
    printf("time: %s %s, a guess from ", guess->disk_seconds == 0 ? "at least" : "about", time);
    if (guess->disk_seconds < guess->seconds)
        printf("computing with %s", text_count(guess->thread_count, "thread", "threads").text);
    else
        printf("reading and writing");
    if (guess->disk_seconds == 0)
        printf("; how fast data come is not known\n");
    else
        printf("; a sample of %s was read at %s/s, writing is taken to be as fast\n", size, rate);
}

void time_guess_put(json_writer *w, const time_guess *guess)
{
    json_member_object(w, "time_guess");
    json_member_double(w, "seconds", guess->seconds);
    json_member_double(w, "cpu_seconds", guess->cpu_seconds);
    json_member_u64(w, "thread_count", guess->thread_count);
    json_member_u64(w, "sample_bytes", guess->sample_bytes);
    json_member_double(w, "sample_bytes_per_second", guess->sample_rate);
    json_put_object_end(w);
}
