/* outside.c: a program of somebody else: lists a checkpoint, reads rows, prints its digest. */
#include <ckpt.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    ckpt_checkpoint *model = NULL;
    ckpt_digest *digest = NULL;
    unsigned char rows[1 << 16];
    char root[CKPT_ROOT_HEX], encoding[64];
    ckpt_error err;

    if (argc != 2 || ckpt_open(argv[1], NULL, &model, &err) != CKPT_OK)
        return fprintf(stderr, "%s\n", argc != 2 ? "usage: outside PATH" : err.text), 2;
    const ckpt_catalog *all = ckpt_source_catalog(ckpt_logical(model));
    for (size_t i = 0; i < ckpt_catalog_count(all); i++) {
        ckpt_tensor_encoding(ckpt_catalog_at(all, i), encoding, sizeof encoding);
        printf("%s\t%s\n", ckpt_catalog_at(all, i)->name, encoding);
    }
    size_t embed = (size_t)ckpt_catalog_find(all, "embed.weight");
    if (ckpt_source_read(ckpt_logical(model), embed, CKPT_DATA, 3, 2, rows, &err) != CKPT_OK ||
        ckpt_digest_source(ckpt_logical(model), NULL, &digest, &err) != CKPT_OK ||
        ckpt_digest_root(digest, 0, root, &err) != CKPT_OK)
        return fprintf(stderr, "%s\n", err.text), 2;
    printf("%02x%02x\n%s\n", rows[0], rows[1], root);
    ckpt_digest_free(digest);
    ckpt_close(model);
    return 0;
}
