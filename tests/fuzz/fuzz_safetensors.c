/* fuzz_safetensors.c: one .safetensors file. An input that starts with a brace is a header, and
 * after its first NUL the data; any other input is the file itself. */
#include "open_file.h"

static void write_file(const uint8_t *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    const uint8_t *end;
    uint8_t length[8];

    if (file == NULL)
        abort();
    if (size > 0 && data[0] == '{') {
        end = memchr(data, '\0', size);
        const uint64_t header_bytes = end == NULL ? size : (uint64_t)(end - data);

        for (int i = 0; i < 8; i++)
            length[i] = (uint8_t)(header_bytes >> 8 * i);
        fwrite(length, 1, sizeof length, file);
        fwrite(data, 1, header_bytes, file);
        data += header_bytes + (end != NULL);
        size -= header_bytes + (end != NULL);
    }
    fwrite(data, 1, size, file);
    fclose(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (path[0] == '\0')
        make_folder("/x.safetensors");
    write_file(data, size);
    open_file();
    return 0;
}
