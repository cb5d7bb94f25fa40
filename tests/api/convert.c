/* convert.c: a checkpoint in another layout and in BF16, and its digest: the same one. */
#include <ckpt.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    ckpt_convert_options options = { .dtype = "bf16", .verify = 1 };
    ckpt_conversion *done = NULL;
    ckpt_error err = { CKPT_OK, "usage: convert LAYOUT SRC DST", 0 };
    const char *note;
    int status = 2;

    if (argc == 4) {
        options.layout = argv[1];
        options.mp = strcmp(argv[1], "mp") == 0 ? 2 : 0;
        options.run.memory_bytes = 512 << 20;
    }
    if (argc != 4 || ckpt_convert(argv[2], argv[3], &options, &done, &err) != CKPT_OK) {
        fprintf(stderr, "%s\n", err.text);
    } else {
        for (size_t i = 0; (note = ckpt_conversion_note(done, i)) != NULL; i++)
            printf("note: %s\n", note);
        printf("%zu tensors\n%s\n", ckpt_conversion_tensors(done), ckpt_conversion_root(done));
        status = 0;
    }
    ckpt_conversion_free(done);
    return status;
}
