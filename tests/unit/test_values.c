/* test_values.c: what encoders and digests ask about the scales of a row. */
#include "values.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { CODES = 11 };      /* one word of eight and a rest */

/* Every bound that is allowed, every code, in the word, at its end and in the rest. */
static void test_e8m0_within_finds_every_code_outside(void **state)
{
    static const size_t places[] = { 0, 3, 7, CODES - 1 };

    (void)state;
    for (unsigned low = 1; low <= 127; low++)
        for (unsigned high = 127; high <= 254; high++)
            for (unsigned code = 0; code <= 255; code++)
                for (size_t p = 0; p < sizeof places / sizeof places[0]; p++) {
                    uint8_t codes[CODES];

                    memset(codes, 127, sizeof codes);
                    codes[places[p]] = (uint8_t)code;
                    if (values_e8m0_within(codes, CODES, (uint8_t)low, (uint8_t)high) !=
                        (code >= low && code <= high))
                        fail_msg("code %u in [%u, %u] at %zu", code, low, high, places[p]);
                }
}

static void test_no_codes_lie_within_anything(void **state)
{
    (void)state;
    assert_true(values_e8m0_within(NULL, 0, 1, 254));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_e8m0_within_finds_every_code_outside),
        cmocka_unit_test(test_no_codes_lie_within_anything),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
