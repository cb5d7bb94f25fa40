/*
 * fuzz_zip_item.c: an item that is accepted lies inside the input, its tensor inside its storage.
 * The same bytes are read as common.pt.
 */
#include "formats/torch_dist/zip_item.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "formats/torch_dist/common_pt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition) do { if (!(condition)) abort(); } while (0)

static void check_item(const zip_item *t, size_t size)
{
    uint64_t last = t->storage_offset;
    int is_empty = 0;

    CHECK(t->payload_offset <= size && t->payload_bytes <= size - t->payload_offset);
    CHECK(t->rank <= CKPT_RANK_MAX && t->element_bytes > 0);
    for (uint32_t d = 0; d < t->rank; d++) {
        is_empty |= t->shape[d] == 0;
        if (t->shape[d] > 0)
            last += (t->shape[d] - 1) * t->strides[d];
    }
    CHECK(is_empty || (last + 1) * t->element_bytes <= t->payload_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const int fd = memfd_create("item", 0);
    common_pt *common;
    ckpt_file *file;
    zip_item item;
    ckpt_error err;
    char path[64];

    CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    CHECK(file_open(path, &file, &err) == CKPT_OK);
    if (zip_item_read(file, 0, size, &item, &err) == CKPT_OK)
        check_item(&item, size);
    if (common_pt_read(file, 0, size, &common, &err) == CKPT_OK)
        common_pt_free(common);
    CHECK(file_close(file, NULL) == CKPT_OK);
    close(fd);
    return 0;
}
