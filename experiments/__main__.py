"""Command line of the main job: `python -m experiments [PART]`."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from experiments import (
    benchmark,
    devices,
    digits,
    report,
    scaling,
    sequences,
    targets,
    thresholds,
    tour,
)

PARTS = {"tour": tour, "digits": digits, "sequences": sequences}
SPEED = {"benchmark": benchmark, "targets": targets, "thresholds": thresholds}
DEVICES = {"devices": devices, "scaling": scaling}
BY_NAME = PARTS | SPEED | DEVICES  # others than PARTS only by name


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
    for name, part in BY_NAME.items():
        text = (part.__doc__ or name).splitlines()[0]
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
    arguments = parser.parse_args(argv)
    arguments.quick = getattr(arguments, "quick", False)
    arguments.seeds = getattr(arguments, "seeds", 1 if arguments.quick else 5)
    arguments.fresh_memory = getattr(arguments, "fresh_memory", False)
    arguments.gpu_target = getattr(arguments, "gpu_target", None)
    arguments.out = getattr(arguments, "out", Path("results"))
    if arguments.seeds < 1:
        parser.error(f"--seeds must be at least 1; got {arguments.seeds}")
    return arguments


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
        job = report.Job(*settings, bar, task, *options)
        job.expect(sum(BY_NAME[name].ticks(job) for name in names))
        found = {n: report.run_part(n, BY_NAME[n].run, job, command) for n in names}
        job.say("done")
    for name in names:
        report.print_finding(console, name, found[name])
    report.print_closing(console, job, found)
    if any(finding.failures for finding, _ in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
