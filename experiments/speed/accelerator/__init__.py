"""Accelerator: right, repeatable and fast on the GPU or TPU of this machine?

Three sections, each of which runs even if another one fails:

- `right`: every public function against the same call on the CPU of this machine, in
  several processes, and `pytest -m accelerator`;
- `repeatable`: three runs of each gradient, with and without XLA's deterministic mode;
- `speed`: large arrays, as a share of the bandwidth of a copy, beside plain `lax` and
  PyTorch;
- `forms`, by name only: large arrays in each form that `implementation` can name.

What is worst is printed last. `--cpu` rehearses all of it, short, on the CPU.
"""

import json
import os
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from experiments.shared import report
from experiments.speed.accelerator import forms, repeatable, right, speed

SECTIONS = {"right": right, "repeatable": repeatable, "speed": speed, "forms": forms}
DEFAULT = ("right", "repeatable", "speed")
SECONDS = 420  # after which no new check and no new measurement begins
UNIT = "checks and timings"


def ticks(job: report.Job) -> int:
    """The checks and measurements of the chosen sections."""
    return sum(SECTIONS[name].ticks(job) for name in _chosen(job))


def run(job: report.Job) -> report.Finding:
    """Run the sections, and list what is worst."""
    # Several processes share the device: none of them may take all of its memory.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if job.cpu:
        os.environ["JAX_PLATFORMS"] = "cpu"
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() == "cpu":
        reason = "JAX finds no GPU and no TPU; --cpu rehearses on the CPU"
        return report.Finding({}, [], [], [], failures=[reason])
    deadline = time.monotonic() + SECONDS
    found = {n: _guarded(SECTIONS[n].run, job, deadline) for n in _chosen(job)}
    return report.Finding(
        results={name: finding.results for name, finding in found.items()},
        tables=[table for finding in found.values() for table in finding.tables],
        conclusion=[
            f"device: {jax.devices()[0].device_kind}",
            *(f"{n}: {line}" for n, f in found.items() for line in f.conclusion),
        ],
        files=[path for finding in found.values() for path in finding.files],
        failures=[f"{n}: {line}" for n, f in found.items() for line in f.failures],
    )


def draw(job: report.Job, results: Mapping[str, Any]) -> list[Path]:
    """Draw the figure of the section `speed` again."""
    return [speed.draw(job, results["speed"])]


def _chosen(job: report.Job) -> Mapping[str, Any]:
    return {name: SECTIONS[name] for name in job.only or DEFAULT}


def _guarded(
    section: Callable[[report.Job, float], report.Finding],
    job: report.Job,
    deadline: float,
) -> report.Finding:
    """Run one section; an exception becomes a failure of that section alone.

    Its numbers are written at once: what comes after it may not end in time.
    """
    name, begin = section.__module__.rpartition(".")[2], time.monotonic()
    try:
        finding = section(job, deadline)
        text = json.dumps(finding.results, indent=1, default=str)
        (job.out / f"accelerator_{name}.json").write_text(text + "\n")
        seconds = time.monotonic() - begin
        job.bar.console.print(f"{name}: {seconds:.0f} s", *finding.conclusion, sep="\n")
        return finding
    except Exception as error:  # of whatever type a device raises
        text = traceback.format_exc()
        job.bar.console.print(text, highlight=False)
        line = f"{type(error).__name__}: {str(error)[:300]}"
        return report.Finding({"error": text}, [], [], [], failures=[line])
