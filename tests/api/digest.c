/* digest.c: the value digest of a checkpoint, with its progress; a second argument cancels it when
 * that many bytes are done. */
#include <ckpt.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    uint64_t done_bytes;
    uint64_t total_bytes;
    uint64_t limit_bytes;
} digest_state;

static void show(void *context, uint64_t done_bytes, uint64_t total_bytes)
{
    digest_state *state = context;

    state->done_bytes = done_bytes;
    state->total_bytes = total_bytes;
}

static int is_enough(void *context)
{
    const digest_state *state = context;

    return state->limit_bytes != 0 && state->done_bytes >= state->limit_bytes;
}

int main(int argc, char **argv)
{
    digest_state state = { 0, 0, argc == 3 ? strtoull(argv[2], NULL, 10) : 0 };
    ckpt_run_options run = { .thread_count = 2, .progress = show, .cancel = is_enough,
                             .context = &state };
    ckpt_checkpoint *model = NULL;
    ckpt_digest *digest = NULL;
    char root[CKPT_ROOT_HEX];
    ckpt_error err = { CKPT_OK, "usage: digest PATH [BYTES]", 0 };
    int status = 2;

    if (argc < 2 || argc > 3 || ckpt_open(argv[1], NULL, &model, &err) != CKPT_OK)
        goto out;
    run.fixed_bytes = ckpt_checkpoint_bytes(model);
    if (ckpt_digest_source(ckpt_logical(model), &run, &digest, &err) != CKPT_OK ||
        ckpt_digest_root(digest, 0, root, &err) != CKPT_OK)
        goto out;
    printf("%s\t%llu of %llu bytes\n", root, (unsigned long long)state.done_bytes,
           (unsigned long long)state.total_bytes);
    status = 0;
out:
    if (status != 0)
        fprintf(stderr, "%s\n", err.text);
    ckpt_digest_free(digest);
    ckpt_close(model);
    return status;
}
