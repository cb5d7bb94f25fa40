/* test_certificate_files.c: who reads the files that are being hashed does not run ahead. */
#include "verify/certificate_files.h"

#include "file_faults.h"

enum { PIECES = 48, WINDOW_PIECES = 2 };

static void test_another_reader_is_never_more_than_a_window_ahead(void **state)
{
    static char zeros[PIECES * SHA256_PIECE_BYTES];
    char name[] = "a.safetensors";
    certificate_file file = { .name = name, .role = CERTIFICATE_WEIGHTS };
    certificate_checkpoint of = { .files = &file, .file_count = 1 };
    certificate_hashing h = { .of = &of, .run = { .thread_count = 1 },
                              .window_bytes = WINDOW_PIECES * SHA256_PIECE_BYTES,
                              .lead_bytes = PIECES * SHA256_PIECE_BYTES };
    char expected[SHA256_HEX];
    ckpt_folder *local;

    (void)state;
    make_file(in_folder(name), zeros, sizeof zeros);
    assert_int_equal(sha256_file(in_folder(name), expected, &err), CKPT_OK);
    assert_int_equal(folder_open_local(folder, &local, &err), CKPT_OK);
    of.folder = local;
    assert_int_equal(certificate_hashing_begin(&h, &err), CKPT_OK);
    for (int i = 0; i < 2 * PIECES; i++) {         /* twice as many bytes do not wait for ever */
        certificate_hashing_keep_pace(&h, SHA256_PIECE_BYTES);
        pthread_mutex_lock(&h.lock);
        assert_true(h.passed_bytes <= h.hashed_bytes + h.window_bytes ||
                    h.ended_count == h.thread_count);
        pthread_mutex_unlock(&h.lock);
    }
    assert_int_equal(certificate_hashing_end(&h, 0, &err), CKPT_OK);
    assert_string_equal(file.sha256, expected);
    folder_close(local);
}

static void test_hashing_is_never_more_than_its_lead_ahead(void **state)
{
    static char zeros[PIECES * SHA256_PIECE_BYTES];
    char name[] = "a.safetensors";
    certificate_file file = { .name = name, .role = CERTIFICATE_WEIGHTS };
    certificate_checkpoint of = { .files = &file, .file_count = 1 };
    certificate_hashing h = { .of = &of, .run = { .thread_count = 1 },
                              .window_bytes = PIECES * SHA256_PIECE_BYTES,
                              .lead_bytes = WINDOW_PIECES * SHA256_PIECE_BYTES };
    ckpt_folder *local;

    (void)state;
    make_file(in_folder(name), zeros, sizeof zeros);
    assert_int_equal(folder_open_local(folder, &local, &err), CKPT_OK);
    of.folder = local;
    assert_int_equal(certificate_hashing_begin(&h, &err), CKPT_OK);
    for (int i = 0; i < PIECES / 2; i++) {
        pthread_mutex_lock(&h.lock);
        while (h.hashed_bytes < h.passed_bytes + h.lead_bytes)     /* it comes as far as it may */
            pthread_cond_wait(&h.moved, &h.lock);
        assert_true(h.hashed_bytes <= h.passed_bytes + h.lead_bytes + SHA256_PIECE_BYTES);
        pthread_mutex_unlock(&h.lock);
        certificate_hashing_keep_pace(&h, SHA256_PIECE_BYTES);
    }
    assert_int_equal(certificate_hashing_end(&h, 0, &err), CKPT_OK);   /* the rest need not wait */
    assert_int_equal(strlen(file.sha256), SHA256_HEX - 1);
    folder_close(local);
}

static void test_nobody_waits_for_hashing_that_failed(void **state)
{
    char name[] = "absent.safetensors";
    certificate_file file = { .name = name, .role = CERTIFICATE_WEIGHTS };
    certificate_checkpoint of = { .files = &file, .file_count = 1 };
    certificate_hashing h = { .of = &of, .run = { .thread_count = 1 }, .window_bytes = 1,
                              .lead_bytes = 1 };
    ckpt_folder *local;

    (void)state;
    assert_int_equal(folder_open_local(folder, &local, &err), CKPT_OK);
    of.folder = local;
    assert_int_equal(certificate_hashing_begin(&h, &err), CKPT_OK);
    certificate_hashing_keep_pace(&h, 1 << 20);
    assert_int_equal(certificate_hashing_end(&h, 0, &err), CKPT_E_IO);
    folder_close(local);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_another_reader_is_never_more_than_a_window_ahead,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hashing_is_never_more_than_its_lead_ahead, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_nobody_waits_for_hashing_that_failed, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
