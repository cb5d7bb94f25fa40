/* compare.c: are the values of two checkpoints the same? Exit status 0, 1 or 2, as the tools'. */
#include <ckpt.h>
#include <stdio.h>

static void print_all(const ckpt_comparison *result)
{
    const ckpt_difference *d;
    const char *name;

    for (size_t i = 0; (d = ckpt_comparison_difference(result, i)) != NULL; i++) {
        char a[CKPT_DIFFERENCE_BYTES], b[CKPT_DIFFERENCE_BYTES];

        ckpt_difference_text(d, 0, a);
        ckpt_difference_text(d, 1, b);
        printf("%s\t%s\t%s\t%s\t%llu\n", d->a->name, ckpt_difference_name(d->kind), a, b,
               (unsigned long long)d->count);
    }
    for (int side = 0; side < 2; side++)
        for (size_t i = 0; (name = ckpt_comparison_missing(result, side, i)) != NULL; i++)
            printf("%s\tmissing in %s\n", name, side == 0 ? "a" : "b");
    for (size_t i = 0; (name = ckpt_comparison_config(result, i)) != NULL; i++)
        printf("%s\tconfig\n", name);
    printf("%zu compared\n", ckpt_comparison_compared(result));
}

int main(int argc, char **argv)
{
    ckpt_checkpoint *a = NULL, *b = NULL;
    ckpt_comparison *result = NULL;
    ckpt_error err = { CKPT_OK, "usage: compare A B", 0 };
    int status = 2;

    if (argc != 3 || ckpt_open(argv[1], NULL, &a, &err) != CKPT_OK ||
        ckpt_open(argv[2], NULL, &b, &err) != CKPT_OK ||
        ckpt_compare(a, b, NULL, &result, &err) != CKPT_OK) {
        fprintf(stderr, "%s\n", err.text);
    } else {
        print_all(result);
        status = ckpt_comparison_is_same(result) ? 0 : 1;
    }
    ckpt_comparison_free(result);
    ckpt_close(b);
    ckpt_close(a);
    return status;
}
