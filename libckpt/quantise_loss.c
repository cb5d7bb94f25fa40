/* Sums of losses; see quantise_loss.h. */
#include "quantise_loss.h"

#include <math.h>

/* Among equal largest errors take the first position, so that the result does not depend on the
 * order of threads. */
static void note_max(quantise_loss *loss, float error, uint64_t row, uint64_t col)
{
    const int earlier = row < loss->max_row || (row == loss->max_row && col < loss->max_col);

    if (error > loss->max_error || (error > 0 && error == loss->max_error && earlier)) {
        loss->max_error = error;
        loss->max_row = row;
        loss->max_col = col;
    }
}

void quantise_loss_note(quantise_loss *loss, const quantise_sums *sums, uint64_t row, uint64_t col)
{
    loss->rounded += sums->rounded;
    loss->saturated += sums->saturated;
    loss->underflowed += sums->underflowed;
    loss->dropped_signs += sums->dropped_signs;
    exact_sum_add(&loss->error_squares, sums->error_squares);
    exact_sum_add(&loss->value_squares, sums->value_squares);
    note_max(loss, sums->max_error, row + sums->max_row, col + sums->max_col);
}

void quantise_loss_merge(quantise_loss *loss, const quantise_loss *other)
{
    loss->elements += other->elements;
    loss->blocks += other->blocks;
    loss->kept_blocks += other->kept_blocks;
    loss->rounded += other->rounded;
    loss->saturated += other->saturated;
    loss->underflowed += other->underflowed;
    loss->dropped_signs += other->dropped_signs;
    exact_sum_merge(&loss->error_squares, &other->error_squares);
    exact_sum_merge(&loss->value_squares, &other->value_squares);
    note_max(loss, other->max_error, other->max_row, other->max_col);
}

double quantise_loss_relative(const quantise_loss *loss)
{
    const double error = exact_sum_value(&loss->error_squares);

    if (error == 0.0)
        return 0.0;
    return sqrt(error) / sqrt(exact_sum_value(&loss->value_squares));
}

double quantise_loss_sqnr(const quantise_loss *loss)
{
    const double relative = quantise_loss_relative(loss);

    return relative == 0.0 ? INFINITY : -20.0 * log10(relative);
}
