/* Byte planes come back; where the bytes go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "libckpt/planes.h"

enum { SIZE_MAX_TESTED = 67 };

static void test_joining_restores_every_size_and_kind(void **state)
{
    unsigned char bytes[SIZE_MAX_TESTED];
    unsigned char planes[SIZE_MAX_TESTED + 1];
    unsigned char back[SIZE_MAX_TESTED + 1];

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 151 + 7);
    for (int kind = 0; kind < PLANES_KINDS; kind++)
        for (size_t size = 0; size <= sizeof bytes; size++) {
            planes[size] = back[size] = 0xA5;
            planes_split((planes_kind)kind, bytes, planes, size);
            planes_join((planes_kind)kind, planes, back, size);
            assert_memory_equal(back, bytes, size);
            assert_int_equal(planes[size], 0xA5);
            assert_int_equal(back[size], 0xA5);
        }
}

static void test_elements_are_divided_by_byte(void **state)
{
    static const unsigned char bytes[9] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    static const unsigned char two[9] = { 1, 3, 5, 7, 2, 4, 6, 8, 9 };
    static const unsigned char four[9] = { 1, 5, 2, 6, 3, 7, 4, 8, 9 };
    unsigned char got[9];

    (void)state;
    planes_split(PLANES_2, bytes, got, sizeof got);
    assert_memory_equal(got, two, sizeof got);
    planes_split(PLANES_4, bytes, got, sizeof got);
    assert_memory_equal(got, four, sizeof got);
    planes_split(PLANES_8, bytes, got, sizeof got);
    assert_memory_equal(got, bytes, sizeof got);
}

static void test_the_exponent_of_bf16_and_f32_fills_the_last_plane(void **state)
{
    static const unsigned char bf16[4] = { 0x81, 0xBF, 0x00, 0x40 };        /* -1.0078125, 2 */
    static const unsigned char f32[4] = { 0, 0, 0xC0, 0xBF };               /* -1.5 */
    unsigned char got[4];

    (void)state;
    planes_split(PLANES_BF16, bf16, got, sizeof got);
    assert_int_equal(got[2], 127);
    assert_int_equal(got[3], 128);
    assert_int_equal(got[0], 0x03);                 /* mantissa 1, then the sign */
    planes_split(PLANES_F32, f32, got, sizeof got);
    assert_int_equal(got[3], 127);
    assert_int_equal(got[0], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_joining_restores_every_size_and_kind),
        cmocka_unit_test(test_elements_are_divided_by_byte),
        cmocka_unit_test(test_the_exponent_of_bf16_and_f32_fills_the_last_plane),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
