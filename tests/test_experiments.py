"""The experiments: their command line, and checks that must see what is wrong."""

import dataclasses
import inspect
import json
from pathlib import Path

import numpy as np
import pytest

import jaxpool

pytest.importorskip("matplotlib", reason="the extra `experiments` is not installed")

from rich.console import Console

from experiments import __main__ as command
from experiments.compilers import compiling, scaling
from experiments.shared import figures, report
from experiments.speed import (
    baseline,
    benchmark,
    peers,
    programs,
    targets,
    thresholds,
    worker,
)
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


# Of `jaxpool`, all that the baseline calls of another checkout.
SUMS = """
def max_pool(x, window, strides, padding):
    return (x * x).reshape(1, 2, 2, 2, 2, 1).sum((2, 4))
"""
CASE = worker.Case(
    label="max 2/2",
    kind="max",
    passes="both",
    function="max_pool",
    shape=(1, 4, 4, 1),
    options={"window": (2, 2), "strides": (2, 2), "padding": "VALID"},
    is_common=True,
)


@pytest.mark.parametrize("name", command.PARTS)
def test_every_part_says_how_long_it_is_and_runs(name):
    part = command._part(name)
    assert len(command.TIMES[name]) == 2
    assert isinstance(part.UNIT, str)
    assert callable(part.ticks)
    assert callable(part.run)


@pytest.mark.parametrize("argv", ["--quick accelerator", "accelerator --quick"])
def test_options_stand_before_the_part_or_after_it(argv):
    arguments = command.parse_arguments(argv.split())
    assert (arguments.quick, arguments.seeds) == (True, 1)
    assert (arguments.cpu, arguments.only, arguments.out) == (
        False,
        (),
        Path("results"),
    )
    rehearsal = command.parse_arguments(["accelerator", "--cpu", "--only", "speed"])
    assert (rehearsal.quick, rehearsal.only) == (True, ("speed",))


def test_a_baseline_is_a_checkout(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.parse_arguments(["benchmark", "--baseline", str(tmp_path)])
    assert "--baseline must hold jaxpool/__init__.py" in capsys.readouterr().err


@pytest.mark.parametrize("threshold", thresholds.THRESHOLDS, ids=lambda t: t.name)
def test_the_library_has_every_threshold(threshold):
    assert threshold.now in threshold.values
    with thresholds._set(threshold.name, -1):
        assert threshold.now == -1
    assert threshold.now in threshold.values


@pytest.fixture
def job(tmp_path):
    with report.progress_bar(Console(quiet=True)) as bar:
        task = bar.add_task("", unit="cases")
        yield report.Job(True, 1, tmp_path, bar, task, baseline=tmp_path)


def test_a_baseline_is_measured_by_its_public_functions(job, tmp_path, monkeypatch):
    (tmp_path / "jaxpool").mkdir()
    (tmp_path / "jaxpool" / "__init__.py").write_text(SUMS)
    missing = CASE._replace(label="min 2/2", function="min_pool")
    monkeypatch.setattr(baseline, "_cases", lambda job: [CASE, missing])
    found = baseline.run(job)
    (case,) = found.results["cases"]
    assert case["difference"] > 0.1
    assert "results differ: max 2/2" in found.conclusion
    # The place of each winner, against the input of each square.
    assert (case["new"]["kept"], case["old"]["kept"]) == (4, 64)
    (missing,) = found.results["not measured"]
    assert missing.startswith("min 2/2: old: AttributeError")
    assert not found.failures


def test_a_ratio_that_is_far_from_one_is_measured_again(job, monkeypatch):
    measured = []

    def measure(job, checkouts, cases):
        measured.append((next(iter(checkouts)), [case.label for case in cases]))
        ratios = {case.label: 2 if len(measured) == 1 else 1.1 for case in cases}
        return list(rows(**ratios)), {}

    monkeypatch.setattr(baseline, "_cases", lambda job: [CASE._replace(label="one")])
    monkeypatch.setattr(baseline, "_measure", measure)
    found = baseline.run(dataclasses.replace(job, quick=False))
    assert measured == [(side, ["one"]) for side in ("new", "old", "new")]
    (case,) = found.results["cases"]
    assert (case["ratio"], case["new"]["turns"]) == (1.1, 3)


def test_a_worker_refuses_another_jaxpool(tmp_path):
    with pytest.raises(ImportError, match="not from"):
        worker.Worker(tmp_path, keep=False)


def rows(**ratios):
    program = worker.Program(0, 0)
    for label, ratio in ratios.items():
        seconds = {"new": [ratio], "old": [1]}
        case = CASE._replace(label=label, is_common="common" in label)
        yield baseline.Row(case, seconds, dict.fromkeys(seconds, program), 0.0)


def test_the_baseline_says_which_targets_are_missed():
    lines = baseline._conclude(list(rows(common_one=1.2, other=1.3, third=0.7)))
    assert lines[0] == "mean at most 1.03: met"
    assert lines[1] == "no common case above 1.15: missed by common_one 1.20"
    lines = baseline._conclude(list(rows(common_one=1.1, common_two=1.0)))
    assert lines[0] == "mean at most 1.03: missed by max both 1.049"
    assert lines[1:3] == [
        "no common case above 1.15: met",
        "worst common case: common_one 1.10",
    ]


def test_a_target_may_have_a_bound_for_the_mean():
    target = targets.Target("a", "b", 0, 6, programs.tracing, 3)
    assert targets._is_met(target, {"one": 5, "two": 1})
    assert not targets._is_met(target, {"one": 5, "two": 2})
    assert targets._misses(target, {"one": 5, "two": 2}) == "mean 3.50, at most 3"
    assert not targets._is_met(target, {"one": 6.5, "two": -4})


def test_a_program_takes_what_its_passes_need():
    x, g = np.arange(4, dtype=np.float32), np.ones(2, np.float32)
    pool = lambda x: x[::2] * 3  # noqa: E731
    for passes, want in (("forward", [[0, 6]]), ("both", [[0, 6], [3, 0, 3, 0]])):
        found = peers.compiled(pool, passes, x, g)(*peers.arguments(passes, x, g))
        found = found if isinstance(found, tuple) else (found,)
        for a, b in zip(found, want, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_device_without_its_compiler_is_skipped_with_a_reason(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for target, extra in ((compiling.V5E, "libtpu"), (compiling.H100, "CUDA plugin")):
        assert extra in compiling.missing(target, None)


@pytest.mark.parametrize(
    ("scores", "lowest", "said"),
    [
        (
            {"a": [0.9, 0.8], "b": [0.8, 0.7]},
            False,
            "a beats b by 10.0 points with each of 2 seeds.",
        ),
        (
            {"a": [0.9, 0.8], "b": [0.8, 0.8]},
            False,
            "a (85.0 ± 5.0 %) and b (80.0 ± 0.0 %) are level",
        ),
        ({"a": [0.9], "b": [0.8]}, False, "a beats b by 10.0 points. One seed"),
        (
            {"a": [0.1], "b": [0.3]},
            True,
            "a beats b (error 0.100, not 0.300). One seed",
        ),
    ],
)
def test_a_verdict_says_by_how_much_and_how_surely(scores, lowest, said):
    assert report.verdict(scores, lowest=lowest).startswith(said)


def test_a_benchmark_is_drawn_again_from_its_json(tmp_path):
    problems = (
        peers.Windows("max", (1, 9, 9, 1), (3, 3), (1, 1), (1, 1)),
        peers.Bins("adaptive_max", (1, 9, 9, 1), (2, 2)),
        peers.Segments("segment_sum", (9, 1), 2),
    )
    seconds = {"jaxpool": 0.1, "torch": 0.2}
    rows = [benchmark.Row(p, s, seconds) for p in problems for s in peers.PASSES]
    records = [row.record() for row in rows]
    results = {"cases": records, "windows": records[: len(peers.PASSES)]}
    results = json.loads(json.dumps(results))
    assert [benchmark.Row.of(record) for record in results["cases"]] == rows
    record = {"quick": True, "seeds": 1, "results": results}
    (tmp_path / "benchmark.json").write_text(json.dumps(record))
    command.main(["benchmark", "--redraw", "--out", str(tmp_path)])
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {"benchmark_ratios.png", "benchmark_windows.png"}


def test_only_an_earlier_run_is_drawn_again(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.parse_arguments(["scaling", "--redraw", "--out", str(tmp_path)])
    assert "--redraw needs an earlier run in --out" in capsys.readouterr().err


def test_a_wrong_gradient_is_drawn_apart(job, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, *_: drawn.append(figure))
    row = scaling.Row("max", "5/1", 2, "lax", "gradient", {}, 1024, 0.0)
    rows = [row._replace(devices=4), row._replace(devices=8, error=1.0)]
    scaling.draw(job, [row._asdict() for row in rows])
    lines = [line for ax in drawn[0].axes for line in ax.lines]
    lines = {str(line.get_label()): line for line in lines}
    assert list(lines["lax, jit"].get_xdata()) == [4]
    assert list(lines["lax, jit: wrong"].get_xdata()) == [8]
    assert lines["lax, jit: wrong"].get_linestyle() == "None"
