"""Two processes with two devices each, connected over the loopback interface."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SECONDS = 240  # two quiet cores take 15


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def go_on(processes):
    """Whether some still run and none has failed: the others would wait for it."""
    codes = [process.poll() for process in processes]
    return None in codes and not any(codes)


@pytest.mark.slow
def test_two_processes_pool_their_rows_together(tmp_path):
    port = str(free_port())
    logs = [tmp_path / f"{i}.log" for i in range(2)]
    processes = []
    try:
        for i, log in enumerate(logs):
            with log.open("w") as output:
                command = [sys.executable, "-m", "tests.engines.two_processes"]
                started = subprocess.Popen(
                    [*command, str(i), "2", port],
                    cwd=Path(__file__).parents[2],
                    env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            processes.append(started)
        end = time.monotonic() + SECONDS
        while go_on(processes) and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    said = [log.read_text() for log in logs]
    assert [p.returncode for p in processes] == [0, 0], "\n".join(said)
    assert all("values and gradients are equal" in text for text in said)
