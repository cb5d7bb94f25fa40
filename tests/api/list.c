/* list.c: what a checkpoint holds: every logical tensor with its encoding and shape. */
#include <ckpt.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    ckpt_checkpoint *model = NULL;
    char encoding[64];
    ckpt_error err;

    if (argc != 2 || ckpt_open(argv[1], NULL, &model, &err) != CKPT_OK) {
        fprintf(stderr, "%s\n", argc != 2 ? "usage: list PATH" : err.text);
        return 2;
    }
    const ckpt_catalog *all = ckpt_source_catalog(ckpt_logical(model));
    for (size_t i = 0; i < ckpt_catalog_count(all); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(all, i);

        ckpt_tensor_encoding(t, encoding, sizeof encoding);
        printf("%s\t%s\t", t->name, encoding);
        for (uint32_t d = 0; d < t->rank; d++)
            printf("%s%llu", d == 0 ? "" : ",", (unsigned long long)t->shape[d]);
        putchar('\n');
    }
    printf("libckpt %s: %s, %s\n", ckpt_version(), ckpt_layout_name(model),
           ckpt_family_name(model));
    ckpt_close(model);
    return 0;
}
