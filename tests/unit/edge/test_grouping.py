import pytest

from gateway.edge.grouping import best_groups


def test_rows_that_are_slow_together_are_decoded_one_by_one():
    """When two rows at once take longer than twice one row, they are two calls; eight pay off."""
    groups = best_groups({1: 7.5, 2: 27.0, 4: 40.0, 8: 48.0})
    assert groups[:6] == [(), (1,), (1, 1), (1, 1, 1), (1,) * 4, (1,) * 5]
    assert groups[8] == (8,)


def test_rows_that_are_fast_together_stay_together():
    """Where a call costs more than its rows, nothing is cut."""
    groups = best_groups({1: 7.0, 2: 7.5, 4: 8.0, 8: 10.0})
    assert groups == [(), *((rows,) for rows in range(1, 9))]


def test_a_cut_that_saves_next_to_nothing_is_not_made():
    """Timing is noisy: a cut has to be worth it."""
    assert best_groups({1: 10.0, 2: 20.3})[2] == (2,)


@pytest.mark.parametrize("rows", range(17))
def test_every_row_is_in_one_group(rows):
    """Whatever the timings, the groups add up."""
    groups = best_groups({1: 5.0, 2: 30.0, 3: 9.0, 4: 50.0, 6: 11.0, 8: 70.0, 12: 20.0, 16: 21.0})
    assert sum(groups[rows]) == rows
