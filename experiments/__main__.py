"""Command line of the main job: `python -m experiments [PART]`."""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import report

# A part is imported when it is run: each needs libraries that others do without.
PARTS = {
    "tour": "the textbook's claims about pooling, checked on digits",
    "digits": "which pool between convolutions",
    "sequences": "global average, global maximum or last state after an LSTM",
}
SPEED = {
    "benchmark": "against Flax, Equinox, Keras and PyTorch, in one process",
    "targets": "the speed that was aimed at, and what was reached",
    "thresholds": "what the measured constants do to the time of a pass",
}
DEVICES = {
    "accelerator": "right, repeatable and fast on the GPU or TPU of this machine",
    "devices": "what the programs for TPUs and a GPU move, without having either",
    "scaling": "what split arrays exchange, and how time grows",
}
BY_NAME = PARTS | SPEED | DEVICES  # others than PARTS only by name
SECTIONS = ("right", "repeatable", "speed", "forms")  # of the part accelerator


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; no sub-command means every part."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--quick",
        action="store_true",
        default=argparse.SUPPRESS,
        help="one seed and few epochs; the results are marked as quick",
    )
    options.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        default=argparse.SUPPRESS,
        help="train every model from N seeds (default: 5, or 1 with --quick)",
    )
    options.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="folder for figures and JSON (default: results)",
    )
    parser = argparse.ArgumentParser(
        prog="python -m experiments",
        description=f"Pooling on real data. Without PART: {', '.join(PARTS)}.",
        epilog="Everything takes less than 5 minutes on 2 cores; no downloads.",
        parents=[options],
    )
    commands = parser.add_subparsers(dest="part", metavar="PART")
    for name, text in BY_NAME.items():
        command = commands.add_parser(
            name, help=text, description=text, parents=[options]
        )
        if name in SPEED:
            command.add_argument(
                "--fresh-memory",
                action="store_true",
                help="leave freed memory to malloc's rules: calls meet page faults",
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
    arguments = parser.parse_args(argv)
    arguments.cpu = getattr(arguments, "cpu", False)
    arguments.only = tuple(getattr(arguments, "only", None) or ())
    arguments.quick = getattr(arguments, "quick", False) or arguments.cpu
    arguments.seeds = getattr(arguments, "seeds", 1 if arguments.quick else 5)
    arguments.fresh_memory = getattr(arguments, "fresh_memory", False)
    arguments.gpu_target = getattr(arguments, "gpu_target", None)
    arguments.out = getattr(arguments, "out", Path("results"))
    if arguments.seeds < 1:
        parser.error(f"--seeds must be at least 1; got {arguments.seeds}")
    return arguments


def _part(name: str) -> Any:
    """The module of a part."""
    return importlib.import_module(f"experiments.{name}")


def main(argv: list[str] | None = None) -> None:
    """Run the chosen parts behind one progress bar, then print what they found."""
    arguments = parse_arguments(argv)
    names = [arguments.part] if arguments.part else list(PARTS)
    typed = sys.argv[1:] if argv is None else argv
    command = " ".join(["python -m experiments", *typed])
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    with report.progress_bar(console) as bar:
        settings = arguments.quick, arguments.seeds, arguments.out
        task = bar.add_task("", total=None)
        options = arguments.fresh_memory, arguments.gpu_target
        device = arguments.cpu, arguments.only
        job = report.Job(*settings, bar, task, *options, *device)
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
