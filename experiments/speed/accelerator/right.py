"""Right: every public function on the device against the same call on the CPU.

The checks of `calls` run in several processes, as tracing is what takes long, in a
drawn order, so that what a deadline leaves out is spread over everything.
"""

import math
import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

import jax
import numpy as np

from experiments.shared import report
from experiments.speed.accelerator import calls
from experiments.speed.accelerator.calls import FUNCTIONS, Check

PROCESSES = 12  # at most; each holds a context of the device
SECONDS = 200  # after which no new check begins
TOLERANCE = 1e-5  # of numbers that are computed in float32
SHOWN = 40  # failures that are printed one by one
# The benchmark plugin, where it is installed, warns beside xdist, which ends pytest.
PYTEST = ("-m", "accelerator", "-n", "4", "-q", "-p", "no:benchmark")
PYTEST += ("-p", "no:cacheprovider", "--ci", "tests/test_accelerator.py")


def ticks(job: report.Job) -> int:
    """One tick a check, and one for pytest."""
    return len(list(calls.checks(job.quick))) + 1


def run(job: report.Job, deadline: float) -> report.Finding:
    """Check everything, while pytest runs."""
    deadline = min(deadline, time.monotonic() + SECONDS)
    tests = _start_pytest(job)
    checks = list(calls.checks(job.quick))
    random.Random(0).shuffle(checks)
    found = _checked(job, checks, deadline)
    said = _end_pytest(job, tests)
    wrong = [f"{check}: {text}" for check, text in found.items() if text]
    left = len(checks) - len(found)
    lines = [f"{len(found)} calls compared with the CPU, {len(wrong)} differ"]
    lines += [f"{left} calls were left out for lack of time"] if left else []
    failures = wrong[:SHOWN]
    if len(wrong) > SHOWN:
        failures.append(f"and {len(wrong) - SHOWN} more, all of them in the JSON")
    if tests and tests.returncode:
        failures.append(f"pytest ended with {tests.returncode}")
    return report.Finding(
        results={"wrong": wrong, "compared": len(found), "pytest": said},
        tables=[_table(found)],
        conclusion=[
            *lines,
            f"pytest -m accelerator: {said[-1] if said else 'not run'}",
        ],
        files=[],
        failures=failures,
    )


def _start_pytest(job: report.Job) -> subprocess.Popen[str] | None:
    """Start the tests that need a device; they would all be skipped on a CPU."""
    if job.cpu:
        return None
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "pytest", *PYTEST]
    return subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def _end_pytest(job: report.Job, tests: subprocess.Popen[str] | None) -> list[str]:
    """The last lines that pytest printed."""
    job.say("right: pytest -m accelerator")
    try:
        return tests.communicate(timeout=120)[0].splitlines()[-60:] if tests else []
    except subprocess.TimeoutExpired:
        tests.kill()
        return ["pytest took too long"]
    finally:
        job.tick()


def _checked(job: report.Job, checks: list[Check], deadline: float) -> dict[Check, str]:
    """What differs in each check that began before the deadline, or nothing."""
    found: dict[Check, str] = {}
    waiting = list(reversed(checks))
    running: dict[Future[str], Check] = {}
    processes = min(PROCESSES, os.cpu_count() or 1)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as workers:
        while running or (waiting and time.monotonic() < deadline):
            while waiting and len(running) < 2 * processes:
                if time.monotonic() >= deadline:
                    break
                check = waiting.pop()
                running[workers.submit(difference, check, job.cpu)] = check
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                check = running.pop(future)
                error = future.exception()
                found[check] = (
                    f"{type(error).__name__}: {error}"[:300]
                    if error
                    else (future.result())
                )
                job.say(f"right: {check.function}")
                job.tick()
    return found


def difference(check: Check, rehearsal: bool) -> str:
    """Say where a check differs between the device and the CPU; nothing if it is right.

    Without a device the form that devices get is compared with that of the CPU.
    """
    cpu = jax.devices("cpu")[0]
    quickly = {"xla_backend_optimization_level": 0}
    form = "reduce_window" if rehearsal else None
    expected = calls.evaluate(check, cpu, None, quickly)
    device = cpu if rehearsal else jax.devices()[0]
    got = calls.evaluate(check, device, form, quickly if rehearsal else None)
    exact = FUNCTIONS[check.function].exact
    lines = (compare(name, got[name], want, exact) for name, want in expected.items())
    return "; ".join(filter(None, lines))


def compare(name: str, got: np.ndarray, want: np.ndarray, exact: bool) -> str:
    """Say how two arrays differ; NaN equals NaN."""
    if (got.dtype, got.shape) != (want.dtype, want.shape):
        return f"{name}: {got.dtype}{got.shape} instead of {want.dtype}{want.shape}"
    rounding = 0.0
    if not exact and want.dtype.itemsize < 4:
        rounding = float(jax.numpy.finfo(want.dtype).eps)
    a, b = (array.astype(np.float64) for array in (got, want))
    finite = np.abs(b[np.isfinite(b)])
    most = finite.max() if finite.size else 0.0
    allowed = 0.0 if exact else TOLERANCE * most
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= allowed + (rounding + TOLERANCE * (not exact)) * np.abs(
            b
        )
    same = near | (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return ""
    first = tuple(int(i) for i in np.argwhere(~same)[0])
    share = f"{np.count_nonzero(~same)} of {same.size}"
    return f"{name}: {share} differ, at {first} {a[first]:g} instead of {b[first]:g}"


def _table(found: dict[Check, str]) -> object:
    """How many calls of each function were compared, and how many differ."""
    compared = Counter(check.function for check in found)
    wrong = Counter(check.function for check, text in found.items() if text)
    rows = [[name, str(compared[name]), str(wrong[name])] for name in sorted(compared)]
    rows.append(
        ["all", str(math.fsum(compared.values()))[:-2], str(sum(wrong.values()))]
    )
    return report.table("Against the CPU", ["function", "calls", "differ"], rows)
