"""Papers: four published claims on pooling, repeated on a CPU without downloads.

- `limits`: identities between aggregations, such as "a softmax-weighted mean runs from
  the minimum through the average to the maximum", checked numerically;
- `mnist1d`: which pool between convolutions (Greydanus and Kobak, 2024);
- `bags`: multiple instance learning (Ilse et al., 2018; McFee et al., 2018);
- `speakers`: statistics of utterances (Snyder et al., 2018; Okabe et al., 2018).

Where the setting is that of the paper, the published figure stands beside ours; the
docstring of each section says what differs.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.papers import bags, limits, mnist1d, speakers
from experiments.shared import report

SECTIONS = {"limits": limits, "mnist1d": mnist1d, "bags": bags, "speakers": speakers}
UNIT = "rounds"  # epochs, or hundreds of steps


def ticks(job: report.Job) -> int:
    """The ticks of the chosen sections."""
    return sum(section.ticks(job) for section in _chosen(job).values())


def run(job: report.Job) -> report.Finding:
    """Run the chosen sections, one after the other."""
    found, seconds = {}, {}
    for name, section in _chosen(job).items():
        begin = time.perf_counter()
        found[name] = section.run(job)
        seconds[name] = round(time.perf_counter() - begin, 1)
    return report.Finding(
        results={n: {"seconds": seconds[n], **f.results} for n, f in found.items()},
        tables=[table for finding in found.values() for table in finding.tables],
        conclusion=[line for f in found.values() for line in f.conclusion],
        files=[path for finding in found.values() for path in finding.files],
        failures=[f"{n}: {line}" for n, f in found.items() for line in f.failures],
    )


def draw(job: report.Job, results: Mapping[str, Any]) -> list[Path]:
    """Draw the figures of the sections that were run."""
    return [SECTIONS[name].draw(job, found) for name, found in results.items()]


def _chosen(job: report.Job) -> Mapping[str, Any]:
    """The sections that `--only` names, or all."""
    return {name: SECTIONS[name] for name in job.only or SECTIONS}
