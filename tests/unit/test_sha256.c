/* test_sha256.c: SHA-256 against the published vectors (FIPS 180-4 examples). */
#include "libckpt/sha256.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "libckpt/file.h"

static const char EMPTY[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
static const char ABC[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
static const char TWO_BLOCKS[] =
    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
static const char MILLION[] = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

static void hash_in_pieces(const char *text, size_t size, size_t piece, char out[SHA256_HEX])
{
    ckpt_error err;
    sha256 *h;

    assert_int_equal(sha256_begin(&h, &err), CKPT_OK);
    for (size_t at = 0; at < size; at += piece)
        assert_int_equal(sha256_add(h, text + at, size - at < piece ? size - at : piece, &err),
                         CKPT_OK);
    assert_int_equal(sha256_end(h, out, &err), CKPT_OK);
}

static void test_the_published_vectors(void **state)
{
    static const char two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    char hex[SHA256_HEX];

    (void)state;
    hash_in_pieces("", 0, 1, hex);
    assert_string_equal(hex, EMPTY);
    hash_in_pieces("abc", 3, 3, hex);
    assert_string_equal(hex, ABC);
    hash_in_pieces(two, strlen(two), 56, hex);
    assert_string_equal(hex, TWO_BLOCKS);
}

static void test_the_cuts_between_pieces_do_not_matter(void **state)
{
    static const char two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    char hex[SHA256_HEX];

    (void)state;
    for (size_t piece = 1; piece <= strlen(two); piece++) {
        hash_in_pieces(two, strlen(two), piece, hex);
        assert_string_equal(hex, TWO_BLOCKS);
    }
}

/* `printf content | git hash-object --stdin` */
static void test_a_git_blob_has_gits_name(void **state)
{
    char hex[SHA256_HEX];
    ckpt_error err;
    sha256 *h;

    (void)state;
    assert_int_equal(git_blob_begin(0, &h, &err), CKPT_OK);
    assert_int_equal(sha256_end(h, hex, &err), CKPT_OK);
    assert_string_equal(hex, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    assert_int_equal(git_blob_begin(3, &h, &err), CKPT_OK);
    assert_int_equal(sha256_add(h, "a", 1, &err), CKPT_OK);
    assert_int_equal(sha256_add(h, "bc", 2, &err), CKPT_OK);
    assert_int_equal(sha256_end(h, hex, &err), CKPT_OK);
    assert_string_equal(hex, "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f");
}

static void test_an_abandoned_hash_and_none_are_given_back(void **state)
{
    ckpt_error err;
    sha256 *h;

    (void)state;
    assert_int_equal(sha256_begin(&h, &err), CKPT_OK);
    sha256_abort(h);
    sha256_abort(NULL);
}

static void test_a_file_hashes_like_its_bytes(void **state)
{
    static char million[1000000];
    char path[] = "/tmp/ckpt-sha256-XXXXXX";
    const int fd = mkstemp(path);
    char hex[SHA256_HEX];
    ckpt_error err;

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(sha256_file(path, hex, &err), CKPT_OK);
    assert_string_equal(hex, EMPTY);
    memset(million, 'a', sizeof million);
    assert_int_equal(file_write_all(path, million, sizeof million, &err), CKPT_OK);
    assert_int_equal(sha256_file(path, hex, &err), CKPT_OK);
    assert_string_equal(hex, MILLION);
    assert_int_equal(unlink(path), 0);
}

static void test_a_file_larger_than_a_piece_is_hashed_whole(void **state)
{
    const size_t size = ((size_t)2 << 20) + 17;
    char path[] = "/tmp/ckpt-sha256-XXXXXX";
    const int fd = mkstemp(path);
    char *bytes = malloc(size);
    char expected[SHA256_HEX];
    char hex[SHA256_HEX];
    ckpt_error err;

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (char)(i * 31 >> 3);
    assert_int_equal(file_write_all(path, bytes, size, &err), CKPT_OK);
    hash_in_pieces(bytes, size, size, expected);
    assert_int_equal(sha256_file(path, hex, &err), CKPT_OK);
    assert_string_equal(hex, expected);
    assert_int_equal(unlink(path), 0);
    free(bytes);
}

static void test_a_missing_file_is_named(void **state)
{
    char hex[SHA256_HEX];
    ckpt_error err;

    (void)state;
    assert_int_equal(sha256_file("/tmp/ckpt-no-such-file", hex, &err), CKPT_E_IO);
    assert_non_null(strstr(err.text, "'/tmp/ckpt-no-such-file'"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_published_vectors),
        cmocka_unit_test(test_the_cuts_between_pieces_do_not_matter),
        cmocka_unit_test(test_a_git_blob_has_gits_name),
        cmocka_unit_test(test_an_abandoned_hash_and_none_are_given_back),
        cmocka_unit_test(test_a_file_hashes_like_its_bytes),
        cmocka_unit_test(test_a_file_larger_than_a_piece_is_hashed_whole),
        cmocka_unit_test(test_a_missing_file_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
