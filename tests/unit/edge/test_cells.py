import pytest

from gateway.edge.cells import Cells


def test_a_copied_prefix_takes_no_cells():
    """A copy shares its cells, which stay taken until the last holder lets go."""
    cells = Cells(10)
    cells.extend(1, 6)
    cells.copy(1, 2, 4)
    assert cells.free == 4
    cells.trim(1, 0)
    assert (cells.free, cells.length(2)) == (6, 4)
    cells.trim(2, 0)
    assert cells.free == 10


def test_more_cells_than_are_free_are_refused():
    """Taking what is not there is an error of the caller's, and takes nothing."""
    cells = Cells(4)
    cells.extend(1, 3)
    with pytest.raises(ValueError, match="2 cells are wanted and 1 are free"):
        cells.extend(1, 2)
    assert cells.free == 1


def test_a_copy_of_more_than_is_there_is_refused():
    """A prefix can only be copied as far as it goes, into an empty sequence."""
    cells = Cells(8)
    cells.extend(1, 2)
    with pytest.raises(ValueError, match="cannot take"):
        cells.copy(1, 2, 3)
    with pytest.raises(ValueError, match="cannot take"):
        cells.copy(1, 1, 1)


def test_what_dropping_a_sequence_would_free():
    """Only cells that nobody else holds count as gained."""
    cells = Cells(10)
    cells.extend(1, 5)
    cells.copy(1, 2, 3)
    assert cells.gained_by_dropping(1) == 2
    assert cells.gained_by_dropping(2) == 0
    assert cells.used_by([1, 2]) == 5
