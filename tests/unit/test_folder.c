/*
 * test_folder.c: checkpoints of every layout read from a folder that is not on a disk: they open,
 * list and digest as from one, so no format makes a path.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/format.h"
#include "formats/hf.h"
#include "formats/mp.h"
#include "formats/torch_dist/torch_dist.h"
#include "memory_folder.h"

#define GOLDEN "tests/data/golden-a"

typedef struct {
    const ckpt_format *format;
    char *directory;
} layout;

static layout layouts[] = {
    { &format_hf, NULL },
    { &format_mp, NULL },
    { &format_torch_dist, NULL },
};
enum { LAYOUT_COUNT = sizeof layouts / sizeof *layouts };

static char base[] = "/tmp/ckpt-test-XXXXXX";
static ckpt_error err;

/* The golden checkpoint, which is HF, in the other layouts. */
static int make_layouts(void **state)
{
    const ckpt_convert_options mp = { .layout = "mp", .mp = 2, .no_space_check = 1 };
    const ckpt_convert_options torch_dist = { .layout = "torch_dist", .dtype = "bf16",
                                              .no_space_check = 1 };

    (void)state;
    if (mkdtemp(base) == NULL)
        return -1;
    layouts[0].directory = strdup(GOLDEN);
    layouts[1].directory = file_join(base, "mp");
    layouts[2].directory = file_join(base, "torch_dist");
    return ckpt_convert(GOLDEN, layouts[1].directory, &mp, NULL, &err) != CKPT_OK ||
           ckpt_convert(GOLDEN, layouts[2].directory, &torch_dist, NULL, &err) != CKPT_OK;
}

static int remove_layouts(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAYOUT_COUNT; i++)
        free(layouts[i].directory);
    return file_remove_tree(base, &err) != CKPT_OK;
}

static ckpt_checkpoint *open_in(memory_tree *tree, const char *name)
{
    folder_place place = memory_tree_place(tree, name);
    ckpt_checkpoint *c = NULL;

    if (checkpoint_open_place(&place, NULL, &c, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    assert_null(place.folder);
    return c;
}

static ckpt_checkpoint *open_at(const char *path)
{
    ckpt_checkpoint *c = NULL;

    if (ckpt_open(path, NULL, &c, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    return c;
}

static void take_root(const ckpt_checkpoint *c, char out[CKPT_ROOT_HEX])
{
    const ckpt_run_options options = { .thread_count = 1, .memory_bytes = 1 << 28 };
    ckpt_digest *digest;

    if (ckpt_digest_source(ckpt_logical(c), &options, &digest, &err) != CKPT_OK ||
        ckpt_digest_root(digest, 0, out, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    ckpt_digest_free(digest);
}

/* The same tensors in the same files at the same positions. */
static void assert_same_store(const ckpt_store *a, const ckpt_store *b)
{
    assert_int_equal(ckpt_catalog_count(a->catalog), ckpt_catalog_count(b->catalog));
    for (size_t i = 0; i < ckpt_catalog_count(a->catalog); i++) {
        const ckpt_tensor *x = ckpt_catalog_at(a->catalog, i);
        const ckpt_tensor *y = ckpt_catalog_at(b->catalog, i);

        assert_string_equal(x->name, y->name);
        assert_string_equal(a->files[x->file].name, b->files[y->file].name);
        assert_true(x->offset == y->offset);
    }
}

static void assert_same_list(const file_list *a, const file_list *b)
{
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++)
        assert_string_equal(a->names[i], b->names[i]);
}

static void test_every_layout_reads_the_same_from_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAYOUT_COUNT; i++) {
        ckpt_checkpoint *local = open_at(layouts[i].directory);
        memory_tree tree = { 0 };
        ckpt_checkpoint *c;
        char expected[CKPT_ROOT_HEX];
        char got[CKPT_ROOT_HEX];

        memory_tree_load(&tree, layouts[i].directory);
        c = open_in(&tree, NULL);
        assert_ptr_equal(c->format, layouts[i].format);
        assert_ptr_equal(local->format, layouts[i].format);
        assert_same_store(c->store, local->store);
        assert_same_list(&c->extras, &local->extras);
        assert_same_list(&c->notes, &local->notes);
        assert_string_equal(c->config_text, local->config_text);
        take_root(local, expected);
        take_root(c, got);
        assert_string_equal(got, expected);
        ckpt_close(c);
        ckpt_close(local);
        memory_tree_release(&tree);
    }
}

static void test_one_file_reads_from_memory(void **state)
{
    static const char name[] = "model-00002-of-00005.safetensors";
    ckpt_checkpoint *local = open_at(GOLDEN "/model-00002-of-00005.safetensors");
    memory_tree tree = { 0 };
    ckpt_checkpoint *c;

    (void)state;
    memory_tree_load(&tree, GOLDEN);
    c = open_in(&tree, name);
    assert_ptr_equal(c->format, &format_safetensors_file);
    assert_same_store(c->store, local->store);
    assert_same_list(&c->notes, &local->notes);
    assert_string_equal(checkpoint_path(c), "memory://tree/model-00002-of-00005.safetensors");
    ckpt_close(c);
    ckpt_close(local);
    memory_tree_release(&tree);
}

/* `text` with every `from` replaced by "weights/" and itself; malloc'd. */
static char *move_below(const char *text, const char *from)
{
    char *out = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&out, &size);
    const char *next;

    assert_non_null(stream);
    for (; (next = strstr(text, from)) != NULL; text = next + strlen(from))
        fprintf(stream, "%.*sweights/%s", (int)(next - text), text, from);
    fputs(text, stream);
    fclose(stream);
    return out;
}

static void test_an_index_leads_into_folders_below(void **state)
{
    memory_tree tree = { 0 };
    char expected[CKPT_ROOT_HEX];
    char got[CKPT_ROOT_HEX];
    ckpt_checkpoint *c;
    char *index;

    (void)state;
    memory_tree_load(&tree, GOLDEN);
    c = open_in(&tree, NULL);
    take_root(c, expected);
    ckpt_close(c);
    index = move_below(memory_tree_find(&tree, HF_INDEX_FILE)->bytes, "model-0000");
    memory_tree_put(&tree, HF_INDEX_FILE, index, strlen(index));
    free(index);
    for (int i = 1; i <= 5; i++) {
        char from[64];
        char to[128];

        snprintf(from, sizeof from, "model-0000%d-of-00005.safetensors", i);
        snprintf(to, sizeof to, "weights/%s", from);
        memory_tree_rename(&tree, from, to);
    }
    c = open_in(&tree, NULL);
    take_root(c, got);
    assert_string_equal(got, expected);
    assert_string_equal(file_path(c->store->files[0].file),
                        "memory://tree/weights/model-00001-of-00005.safetensors");
    ckpt_close(c);
    memory_tree_release(&tree);
}

static void test_detection_walks_no_tree_and_opens_no_file(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAYOUT_COUNT; i++) {
        memory_tree tree = { 0 };
        folder_place place = memory_tree_place(&tree, NULL);
        size_t f = 0;

        memory_tree_load(&tree, layouts[i].directory);
        while (!ckpt_formats[f]->detect(&place)) {
            assert_in_range(tree.list_count, 0, 1);
            tree.list_count = 0;
            f++;
        }
        assert_ptr_equal(ckpt_formats[f], layouts[i].format);
        assert_in_range(tree.list_count, 0, 1);
        assert_int_equal(tree.walk_count, 0);
        assert_int_equal(tree.open_count, 0);
        folder_place_release(&place);
        memory_tree_release(&tree);
    }
}

static void test_a_file_that_was_replaced_is_noticed(void **state)
{
    static const char name[] = "model-00001-of-00005.safetensors";
    memory_tree tree = { 0 };
    const memory_file *file;
    ckpt_checkpoint *c;
    char *bytes;

    (void)state;
    memory_tree_load(&tree, GOLDEN);
    c = open_in(&tree, NULL);
    assert_int_equal(store_check_unchanged(c->store, NULL, &err), CKPT_OK);
    file = memory_tree_find(&tree, name);
    bytes = malloc(file->size);
    assert_non_null(bytes);
    memcpy(bytes, file->bytes, file->size);
    memory_tree_put(&tree, name, bytes, file->size);
    free(bytes);
    assert_int_equal(store_check_unchanged(c->store, NULL, &err), CKPT_E_FORMAT);
    assert_string_equal(err.text, "'memory://tree/model-00001-of-00005.safetensors' was changed "
                                  "while it was read");
    ckpt_close(c);
    memory_tree_release(&tree);
}

static void assert_refused(memory_tree *tree, const char *name, const char *text)
{
    folder_place place = memory_tree_place(tree, name);
    ckpt_checkpoint *c = NULL;

    assert_int_not_equal(checkpoint_open_place(&place, NULL, &c, &err), CKPT_OK);
    assert_null(c);
    assert_string_equal(err.text, text);
}

static void test_what_cannot_be_read_is_told_by_the_folders_names(void **state)
{
    memory_tree tree = { 0 };

    (void)state;
    memory_tree_load(&tree, GOLDEN);
    memory_tree_remove(&tree, "model-00004-of-00005.safetensors");
    assert_refused(&tree, NULL, "'memory://tree/model.safetensors.index.json' names 5 files, of "
                                "which 1 does not exist; the first is "
                                "'model-00004-of-00005.safetensors'");
    memory_tree_release(&tree);
    memory_tree_put(&tree, "model.pth", "PK", 2);
    assert_refused(&tree, NULL, "'memory://tree' has no safetensors files: 'model.pth' is a "
                                "PyTorch file, which is not supported: save the model as "
                                "safetensors");
    memory_tree_put(&tree, "short.safetensors", "1234", 4);
    assert_refused(&tree, "short.safetensors",
                   "'memory://tree/short.safetensors' has only 4 bytes, too few for a header");
    memory_tree_release(&tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_layout_reads_the_same_from_memory),
        cmocka_unit_test(test_one_file_reads_from_memory),
        cmocka_unit_test(test_an_index_leads_into_folders_below),
        cmocka_unit_test(test_detection_walks_no_tree_and_opens_no_file),
        cmocka_unit_test(test_a_file_that_was_replaced_is_noticed),
        cmocka_unit_test(test_what_cannot_be_read_is_told_by_the_folders_names),
    };

    return cmocka_run_group_tests(tests, make_layouts, remove_layouts);
}
