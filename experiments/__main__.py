"""Command line of the experiments: `python -m experiments [PART]`."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

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
    "scaling": "what devices exchange for pools of split arrays",
}
PAPERS = {"papers": "what was published about pooling, repeated in minutes"}
FOLDERS = {
    "lessons": LESSONS,
    "speed": SPEED,
    "compilers": COMPILERS,
    "papers": PAPERS,
}
PARTS = LESSONS | SPEED | COMPILERS | PAPERS  # without a name, the lessons are run
SECTIONS = {  # what `--only` can name
    "accelerator": ("right", "repeatable", "speed", "forms"),
    "papers": ("limits", "mnist1d", "bags", "speakers"),
}
DEFAULTS: dict[str, Any] = {
    "quick": False,
    "seeds": None,
    "out": Path("results"),
    "fresh_memory": False,
    "baseline": None,
    "gpu_target": None,
    "cpu": False,
    "only": None,
    "redraw": False,
}

# About how long a part takes on two cores, and with --quick.
TIMES = {
    "tour": ("5 s", "5 s"),
    "digits": ("1 min", "15 s"),
    "sequences": ("1.5 min", "30 s"),
    "benchmark": ("10 min", "1 min"),
    "baseline": ("6 min", "10 s"),  # the part benchmark with --baseline
    "targets": ("5 min", "20 s"),
    "thresholds": ("3 min", "15 s"),
    "accelerator": ("7 min on an H100", "1 min"),
    "devices": ("21 min", "2 min"),
    "scaling": ("2.5 min", "20 s"),
    "papers": ("7 min", "30 s"),
}


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; without a part, every lesson is run."""
    shared = _shared_options()
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description=f"Pooling on real data. Without PART: {', '.join(LESSONS)}.",
        epilog="Times are those of a full run on two cores. Nothing is downloaded. "
        "Nothing is written outside the folder of --out.",
        parents=[shared],
    )
    commands = parser.add_subparsers(dest="part", metavar="PART")
    for name, text in PARTS.items():
        command = commands.add_parser(
            name,
            help=f"{text} ({TIMES[name][0]})",
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"It takes {_about(name)}, {_about(name, quick=True)} with --quick.",
            parents=[shared],
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
    if arguments.redraw and arguments.baseline:
        parser.error("--redraw draws a comparison with the peers: without --baseline")
    if arguments.redraw:
        record = arguments.out / f"{arguments.part}.json"
        if not record.is_file():
            parser.error(f"--redraw needs an earlier run in --out; no file {record}")
    return arguments


def _shared_options() -> argparse.ArgumentParser:
    """The options of every part; they may stand before the part or after it."""
    options = argparse.ArgumentParser(
        add_help=False, argument_default=argparse.SUPPRESS
    )
    options.add_argument(
        "--quick",
        action="store_true",
        help="a short run: one seed, few epochs or cases; its results are marked",
    )
    options.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="lessons, papers: train each model from N seeds (default: 5, quick: 1)",
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
            help="compare with the jaxpool of another checkout instead of the peers: "
            f"{_about('baseline')}",
        )
    if name in ("accelerator", "benchmark", "papers", "scaling"):
        command.add_argument(
            "--redraw",
            action="store_true",
            help="measure nothing; draw the figures again from the JSON of --out",
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
    if name in SECTIONS:
        command.add_argument(
            "--only",
            nargs="+",
            choices=SECTIONS[name],
            metavar="SECTION",
            help=f"some of the sections: {', '.join(SECTIONS[name])}",
        )


def _part(name: str) -> Any:
    """The module of a part."""
    if name == "baseline":  # the part benchmark with --baseline
        return importlib.import_module("experiments.speed.baseline")
    folder = next(folder for folder, parts in FOLDERS.items() if name in parts)
    return importlib.import_module(f"experiments.{folder}.{name}")


def _about(name: str, quick: bool = False) -> str:
    """How long a part takes, and on what."""
    time = TIMES[name][quick]
    return f"about {time}" if "H100" in time else f"about {time} on two cores"


def _redraw(name: str, folder: Path) -> list[Path]:
    """Draw the figures of an earlier run again, from its JSON."""
    record = json.loads((folder / f"{name}.json").read_text())
    job = report.Job(record["quick"], record["seeds"], folder, Progress(), TaskID(0))
    return _part(name).draw(job, record["results"])


def _names(arguments: argparse.Namespace) -> list[str]:
    """The parts to run; their JSON files have the same names."""
    if arguments.baseline:
        return ["baseline"]
    return [arguments.part] if arguments.part else list(LESSONS)


def main(argv: list[str] | None = None) -> None:
    """Run the chosen parts, each with a line of progress, then print the findings."""
    arguments = parse_arguments(argv)
    names = _names(arguments)
    typed = sys.argv[1:] if argv is None else argv
    command = " ".join(["python -m experiments", *typed])
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    if arguments.redraw:
        for path in _redraw(names[0], arguments.out):
            console.print(f"Drawn again: {path}", highlight=False, soft_wrap=True)
        return
    for name in names:
        most = "up to " if arguments.only else ""
        about = most + _about(name, arguments.quick)
        console.print(f"{name} takes {about}.", highlight=False)
    found = {}
    with report.progress_bar(console) as bar:
        for name in names:
            part = _part(name)
            job = report.Job(
                quick=arguments.quick,
                seeds=arguments.seeds,
                out=arguments.out,
                bar=bar,
                task=bar.add_task(name, visible=False, unit=part.UNIT),
                fresh_memory=arguments.fresh_memory,
                baseline=arguments.baseline,
                gpu_target=arguments.gpu_target,
                cpu=arguments.cpu,
                only=arguments.only,
            )
            job.expect(part.ticks(job))
            found[name] = report.run_part(name, part.run, job, command)
            job.say(f"{name}: done")
    for name in names:
        report.print_finding(console, name, found[name])
    report.print_closing(console, job, found)
    if any(finding.failures for finding, _ in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
