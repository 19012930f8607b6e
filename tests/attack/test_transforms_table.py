"""The table of transformations: each cell runs, or is named with a reason."""

import inspect

import pytest

import jaxpool
from tests.attack.transforms import COLUMNS, IMPOSSIBLE, ROWS

# Cells that fail today, each with the fault that somebody else is mending.
OWED = {
    (f"checkify, {errors}", "max_unpool"): "A6: jax has no check of a mapped scatter"
    for errors in ("index", "automatic", "all")
}


def _marks(cell):
    if cell not in OWED:
        return ()
    return pytest.mark.xfail(reason=OWED[cell], strict=True, raises=IndexError)


CELLS = [
    pytest.param(*cell, marks=_marks(cell), id="-".join(cell))
    for cell in ((column, row) for column in COLUMNS for row in ROWS)
    if cell not in IMPOSSIBLE
]


@pytest.mark.share(30)
@pytest.mark.parametrize(("column", "row"), CELLS)
def test_cell(column, row):
    COLUMNS[column](ROWS[row])


def test_every_public_function_has_a_row():
    public = {name: value for name, value in vars(jaxpool).items() if name[0] != "_"}
    functions = {name for name, value in public.items() if inspect.isfunction(value)}
    assert functions - {"forward_mode", "stream"} == {row.base for row in ROWS.values()}
