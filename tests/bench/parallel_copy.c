/*
 * parallel_copy.c: the fastest that files can be read and written here, as a bar for conversions.
 *
 *   parallel_copy THREADS CHUNK_BYTES {IN OUT OUT_BYTES}...
 *
 * Reads every IN once and writes OUT_BYTES to every OUT at positions, in chunks, from all threads:
 * what a perfect conversion between files of these sizes would do. OUT_BYTES 0 only reads; an OUT
 * named again grows by OUT_BYTES. What is written is what the chunk's buffer holds: the bytes of
 * IN, then whatever was there. Ends with fsync, as conversions do. Prints nothing; the caller takes
 * the time.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAIR_ARGS = 3, PAIRS_FIRST = 3, THREADS_MAX = 1024 };

typedef struct {
    const char *in_path;
    const char *out_path;
    int in;
    int out;
    int shares_out;               /* 1: `out` is that of an earlier pair */
    uint64_t out_offset;
    uint64_t in_bytes;
    uint64_t out_bytes;
    uint64_t chunk_count;
    uint64_t next_chunk;          /* guarded by the job's lock */
} pair;

/* What the threads share. */
typedef struct {
    pair *pairs;
    size_t pair_count;
    uint64_t chunk_bytes;
    pthread_mutex_t lock;
    size_t threads_started;       /* guarded by the lock */
} copy_job;

static void fail(const char *path)
{
    fprintf(stderr, "parallel_copy: '%s': %s\n", path, strerror(errno));
    exit(2);
}

static uint64_t chunks_left(const pair *p)
{
    return p->chunk_count - p->next_chunk;
}

/* Files serve one writer at a time, so a thread stays with its pair while there is work, then goes
 * to the one where most is left. */
static int take_chunk(copy_job *job, pair **p, uint64_t *chunk)
{
    int found;

    pthread_mutex_lock(&job->lock);
    if (chunks_left(*p) == 0)
        for (size_t i = 0; i < job->pair_count; i++)
            if (chunks_left(&job->pairs[i]) > chunks_left(*p))
                *p = &job->pairs[i];
    found = chunks_left(*p) > 0;
    if (found)
        *chunk = (*p)->next_chunk++;
    pthread_mutex_unlock(&job->lock);
    return found;
}

/* Position of the chunk in a file of `size` bytes: files are cut into the same number of chunks. */
static uint64_t chunk_start(const pair *p, uint64_t chunk, uint64_t size)
{
    return (uint64_t)((unsigned __int128)size * chunk / p->chunk_count);
}

static void read_chunk(const pair *p, uint64_t chunk, char *buffer)
{
    uint64_t offset = chunk_start(p, chunk, p->in_bytes);
    const uint64_t end = chunk_start(p, chunk + 1, p->in_bytes);

    while (offset < end) {
        const ssize_t got = pread(p->in, buffer, (size_t)(end - offset), (off_t)offset);

        if (got <= 0)
            fail(p->in_path);
        buffer += got;
        offset += (uint64_t)got;
    }
}

static void write_chunk(const pair *p, uint64_t chunk, const char *buffer)
{
    uint64_t offset = chunk_start(p, chunk, p->out_bytes);
    const uint64_t end = chunk_start(p, chunk + 1, p->out_bytes);

    while (offset < end) {
        const ssize_t put = pwrite(p->out, buffer, (size_t)(end - offset),
                                   (off_t)(p->out_offset + offset));

        if (put <= 0)
            fail(p->out_path);
        buffer += put;
        offset += (uint64_t)put;
    }
}

static void *copy_thread(void *context)
{
    copy_job *job = context;
    char *buffer = calloc(1, job->chunk_bytes + 1);
    uint64_t chunk;
    pair *p;

    pthread_mutex_lock(&job->lock);
    p = &job->pairs[job->threads_started++ % job->pair_count];
    pthread_mutex_unlock(&job->lock);
    if (buffer == NULL)
        fail("a buffer");
    while (take_chunk(job, &p, &chunk)) {
        read_chunk(p, chunk, buffer);
        write_chunk(p, chunk, buffer);
    }
    free(buffer);
    return NULL;
}

static uint64_t parse(const char *text)
{
    char *end;
    const unsigned long long value = strtoull(text, &end, 10);

    if (*text == '\0' || *end != '\0') {
        fprintf(stderr, "parallel_copy: '%s' is not a number\n", text);
        exit(2);
    }
    return value;
}

static void open_out(copy_job *job, pair *p)
{
    const pair *before = p;

    while (before > job->pairs && p->out < 0)
        if (strcmp((--before)->out_path, p->out_path) == 0)
            p->out = before->out;
    p->shares_out = p->out >= 0;
    if (p->shares_out)
        p->out_offset = before->out_offset + before->out_bytes;
    else
        p->out = open(p->out_path, O_WRONLY | O_CREAT | O_EXCL, 0666);
    if (p->out < 0 || ftruncate(p->out, (off_t)(p->out_offset + p->out_bytes)) != 0)
        fail(p->out_path);
}

static void open_pair(copy_job *job, pair *p, char **argv)
{
    struct stat status;
    uint64_t larger;

    p->in_path = argv[0];
    p->out_path = argv[1];
    p->out_bytes = parse(argv[2]);
    p->out = -1;
    p->in = open(p->in_path, O_RDONLY);
    if (p->in < 0 || fstat(p->in, &status) != 0)
        fail(p->in_path);
    p->in_bytes = (uint64_t)status.st_size;
    if (p->out_bytes > 0)
        open_out(job, p);
    larger = p->in_bytes > p->out_bytes ? p->in_bytes : p->out_bytes;
    p->chunk_count = (larger + job->chunk_bytes - 1) / job->chunk_bytes;
}

int main(int argc, char **argv)
{
    copy_job job = { .lock = PTHREAD_MUTEX_INITIALIZER };
    pthread_t threads[THREADS_MAX];
    uint64_t thread_count;

    if (argc < PAIRS_FIRST + PAIR_ARGS || (argc - PAIRS_FIRST) % PAIR_ARGS != 0) {
        fprintf(stderr, "usage: parallel_copy THREADS CHUNK_BYTES {IN OUT OUT_BYTES}...\n");
        return 2;
    }
    thread_count = parse(argv[1]);
    job.chunk_bytes = parse(argv[2]);
    job.pair_count = (size_t)(argc - PAIRS_FIRST) / PAIR_ARGS;
    job.pairs = calloc(job.pair_count, sizeof *job.pairs);
    if (job.pairs == NULL || thread_count == 0 || thread_count > THREADS_MAX ||
        job.chunk_bytes == 0)
        return 2;
    for (size_t i = 0; i < job.pair_count; i++)
        open_pair(&job, &job.pairs[i], argv + PAIRS_FIRST + (int)i * PAIR_ARGS);
    for (uint64_t i = 0; i < thread_count; i++)
        if (pthread_create(&threads[i], NULL, copy_thread, &job) != 0)
            fail("a thread");
    for (uint64_t i = 0; i < thread_count; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < job.pair_count; i++)
        if (job.pairs[i].out >= 0 && !job.pairs[i].shares_out &&
            (fsync(job.pairs[i].out) != 0 || close(job.pairs[i].out) != 0))
            fail(job.pairs[i].out_path);
    free(job.pairs);
    return 0;
}
