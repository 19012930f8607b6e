"""A few dozen random calls of each dialect beside its library; more by hand.

See `tests.attack.dialects` for the command that runs thousands.
"""

import importlib
import os

import pytest

from tests.attack import dialects


@pytest.mark.slow
@pytest.mark.parametrize("dialect", dialects.DRAWN)
@pytest.mark.filterwarnings("ignore")  # those of the libraries, about odd arguments
def test_random_calls(dialect):
    os.environ["KERAS_BACKEND"] = "jax"
    pytest.importorskip(dialect)
    failures, counts = dialects.attack("tests", 12, [dialect])
    assert not failures, "\n\n".join(failures)
    assert counts["same"]


@pytest.mark.filterwarnings("ignore")
def test_a_difference_is_found_and_made_small(monkeypatch):
    """One number that is wrong, in the gradients and in nothing else."""

    def wrong(call):
        outputs, gradient = dialects.of_jax(getattr(flax, call.name), call)
        return outputs, None if gradient is None else gradient + 1

    flax = importlib.import_module("jaxpool.compat.flax")
    monkeypatch.setattr(dialects, "by_ours", wrong)
    monkeypatch.setattr(dialects, "ACCEPTED", {})
    for number in range(100):
        call = dialects.drawn("wrong", number, ["flax"])
        found = dialects.difference(call)
        if not isinstance(found, str) and found.kind == "gradient":
            break
    small, found = dialects.smallest(call, found, budget=20)
    assert found.kind == "gradient"
    assert len(str(small)) <= len(str(call))


def test_every_accepted_difference_says_why():
    for name, entry in dialects.ACCEPTED.items():
        assert len(entry.reason) > 5, name
        assert entry.dialect in ("any", *dialects.DRAWN), name
