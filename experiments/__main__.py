"""Command line of the experiments: `python -m experiments [PART]`."""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.shared import report

# A part is imported when it is run: each needs libraries that others do without.
LESSONS = {
    "tour": "the textbook's claims about pooling, checked on digits",
    "digits": "which pool between convolutions",
    "sequences": "global average, global maximum or last state after an LSTM",
}
SPEED = {
    "benchmark": "against Flax, Equinox, Keras and PyTorch, or an older version",
    "targets": "the speed that was aimed at, and what was reached",
    "thresholds": "what the measured constants do to the time of a pass",
    "accelerator": "right, repeatable and fast on the GPU or TPU of this machine",
}
COMPILERS = {
    "devices": "what the programs for TPUs and a GPU move, without having either",
    "scaling": "what split arrays exchange, and how time grows",
}
FOLDERS = {"lessons": LESSONS, "speed": SPEED, "compilers": COMPILERS}
PARTS = LESSONS | SPEED | COMPILERS  # without a name, the lessons are run
SECTIONS = ("right", "repeatable", "speed", "forms")  # of the part accelerator
DEFAULTS: dict[str, Any] = {
    "quick": False,
    "seeds": None,
    "out": Path("results"),
    "fresh_memory": False,
    "baseline": None,
    "gpu_target": None,
    "cpu": False,
    "only": None,
}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; without a part, every lesson is run."""
    shared = _shared_options()
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description=f"Pooling on real data. Without PART: {', '.join(LESSONS)}.",
        epilog="Everything takes less than 5 minutes on 2 cores; no downloads.",
        parents=[shared],
    )
    commands = parser.add_subparsers(dest="part", metavar="PART")
    for name, text in PARTS.items():
        command = commands.add_parser(
            name, help=text, description=text, parents=[shared]
        )
        _add_options(command, name)
    given = vars(parser.parse_args(argv))
    arguments = argparse.Namespace(**DEFAULTS | given)
    arguments.only = tuple(arguments.only or ())
    arguments.quick = arguments.quick or arguments.cpu
    if arguments.seeds is None:
        arguments.seeds = 1 if arguments.quick else 5
    if arguments.seeds < 1:
        parser.error(f"--seeds must be at least 1; got {arguments.seeds}")
    baseline = arguments.baseline
    if baseline and not (baseline / "jaxpool" / "__init__.py").is_file():
        parser.error(f"--baseline must hold jaxpool/__init__.py; got {baseline}")
    return arguments


def _shared_options() -> argparse.ArgumentParser:
    """The options of every part; they may stand before the part or after it."""
    options = argparse.ArgumentParser(
        add_help=False, argument_default=argparse.SUPPRESS
    )
    options.add_argument(
        "--quick",
        action="store_true",
        help="one seed and few epochs; the results are marked as quick",
    )
    options.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="train every model from N seeds (default: 5, or 1 with --quick)",
    )
    options.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for figures and JSON (default: results)",
    )
    return options


def _add_options(command: argparse.ArgumentParser, name: str) -> None:
    """The options that only one part or a few have."""
    if name in ("benchmark", "targets", "thresholds"):
        command.add_argument(
            "--fresh-memory",
            action="store_true",
            help="leave freed memory to malloc's rules: calls meet page faults",
        )
    if name == "benchmark":
        command.add_argument(
            "--baseline",
            type=Path,
            metavar="PATH",
            help="compare with the jaxpool of another checkout instead of the peers",
        )
    if name == "devices":
        command.add_argument(
            "--gpu-target",
            type=Path,
            metavar="FILE",
            help="a GpuTargetConfigProto as text, of an H100; else it is skipped",
        )
    if name == "accelerator":
        command.add_argument(
            "--cpu",
            action="store_true",
            help="rehearse it on the CPU, short as with --quick",
        )
        command.add_argument(
            "--only",
            nargs="+",
            choices=SECTIONS,
            metavar="SECTION",
            help=f"some of the sections: {', '.join(SECTIONS)}",
        )


def _part(name: str) -> Any:
    """The module of a part."""
    if name == "baseline":  # the part benchmark with --baseline
        return importlib.import_module("experiments.speed.baseline")
    folder = next(folder for folder, parts in FOLDERS.items() if name in parts)
    return importlib.import_module(f"experiments.{folder}.{name}")


def _names(arguments: argparse.Namespace) -> list[str]:
    """The parts to run; their JSON files have the same names."""
    if arguments.baseline:
        return ["baseline"]
    return [arguments.part] if arguments.part else list(LESSONS)


def main(argv: list[str] | None = None) -> None:
    """Run the chosen parts behind one progress bar, then print what they found."""
    arguments = parse_arguments(argv)
    names = _names(arguments)
    typed = sys.argv[1:] if argv is None else argv
    command = " ".join(["python -m experiments", *typed])
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    with report.progress_bar(console) as bar:
        job = report.Job(
            quick=arguments.quick,
            seeds=arguments.seeds,
            out=arguments.out,
            bar=bar,
            task=bar.add_task("", total=None),
            fresh_memory=arguments.fresh_memory,
            baseline=arguments.baseline,
            gpu_target=arguments.gpu_target,
            cpu=arguments.cpu,
            only=arguments.only,
        )
        parts = {name: _part(name) for name in names}
        job.expect(sum(part.ticks(job) for part in parts.values()))
        found = {n: report.run_part(n, parts[n].run, job, command) for n in names}
        job.say("done")
    for name in names:
        report.print_finding(console, name, found[name])
    report.print_closing(console, job, found)
    if any(finding.failures for finding, _ in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
