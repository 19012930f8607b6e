"""Each wrong call is refused, by an error that names its argument, before array work.

Nothing may be traced, and so nothing compiled.
"""

import contextlib
import re

import jax
import pytest

from jaxpool.functions.options import _halves
from tests.attack import wrong_calls

CASES = wrong_calls.cases()
ERRORS = (ValueError, TypeError, NotImplementedError)


def fault(case):
    """What is wrong with how a case is refused, if anything is."""
    is_torch = case.name.startswith("torch.")
    try:
        # jax.eval_shape traces; PyTorch's arrays become jax's before they are checked.
        may_trace = case.argument in ("op", "reduce_fn", "key") or is_torch
        with contextlib.nullcontext() if may_trace else jax.no_tracing():
            case()
    except Exception as error:
        if type(error) not in (*ERRORS, *[RuntimeError] * is_torch):
            return f"{type(error).__name__}: {error!s:.100}"
        if not re.search(rf"\b{case.argument}\b", str(error)):
            return f"does not name it: {error!s:.100}"
        return None
    return "accepted"


@pytest.fixture(autouse=True, scope="module")
def programs_that_checks_need():
    """Samples of modules are computed."""
    for count in (1, 2, 3, 5):
        _halves(count)


def test_there_are_many():
    assert len(CASES) >= 6000
    assert len({case.name for case in CASES}) >= 75


@pytest.mark.parametrize("name", sorted({case.name for case in CASES}))
def test_wrong_calls_are_refused_by_name(name):
    faults = {c.label: fault(c) for c in CASES if c.name == name}
    assert not {label: what for label, what in faults.items() if what}
