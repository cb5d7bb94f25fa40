/* fuzz_gguf.c: one .gguf file: keys, tensors, and a config.json made of the keys. */
#include "open_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    FILE *file;

    if (path[0] == '\0')
        make_folder("/x.gguf");
    if ((file = fopen(path, "wb")) == NULL)
        abort();
    fwrite(data, 1, size, file);
    fclose(file);
    open_file();
    return 0;
}
