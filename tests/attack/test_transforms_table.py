"""The table of transformations: each cell runs, or is named with a reason."""

import pytest

from tests.attack.transforms import COLUMNS, IMPOSSIBLE, ROWS

CELLS = [
    pytest.param(column, row, id=f"{column}-{row}")
    for column in COLUMNS
    for row in ROWS
    if (column, row) not in IMPOSSIBLE
]


@pytest.mark.parametrize(("column", "row"), CELLS)
def test_cell(column, row):
    COLUMNS[column](ROWS[row])
