"""The checks of `experiments accelerator` see faults, and leave no function out."""

import inspect

import numpy as np
import pytest

import jaxpool

pytest.importorskip("matplotlib", reason="the extra `experiments` is not installed")

from experiments.speed.accelerator import calls, right

# They say something of a pool, and compute nothing.
STATIC = {"output_shape", "implementation_for", "forward_mode"}


def test_every_public_function_is_checked():
    public = {n for n, f in vars(jaxpool).items() if inspect.isfunction(f)} - STATIC
    checked = {name.split()[0] for name in calls.FUNCTIONS}
    assert {name for name in public if not name.startswith("_")} <= checked
    assert {check.function for check in calls.checks(quick=True)} == {*calls.FUNCTIONS}


@pytest.mark.parametrize(
    ("got", "exact", "differs"),
    [
        ([1, 2, np.nan], True, False),
        ([1, 2 + 1e-7, np.nan], False, False),
        ([1, 2.001, np.nan], False, True),
        ([1, np.nextafter(np.float32(2), 3), np.nan], True, True),
        ([1, 2, 0], True, True),
        ([1, np.nan, np.nan], False, True),
        ([1, np.inf, np.nan], False, True),
    ],
)
def test_a_difference_is_seen(got, exact, differs):
    want = np.asarray([1, 2, np.nan], np.float32)
    text = right.compare("values", np.asarray(got, np.float32), want, exact)
    assert bool(text) == differs


def test_another_dtype_is_a_difference():
    want = np.zeros(2, np.float32)
    assert "float64" in right.compare("values", want.astype(np.float64), want, True)


@pytest.mark.parametrize("name", ["max_pool", "global_avg_pool", "max_unpool"])
def test_a_wrong_form_is_seen(name, monkeypatch):
    check = next(c for c in calls.checks(quick=True) if c.function == name)
    assert right.difference(check, rehearsal=True) == ""
    evaluate = calls.evaluate

    def off_by_one(check, device, *others):
        found = evaluate(check, device, *others)
        if others and others[0]:  # the form of devices
            found["gradient"] = found["gradient"] + 1
        return found

    monkeypatch.setattr(calls, "evaluate", off_by_one)
    assert "gradient" in right.difference(check, rehearsal=True)
