"""Two processes with two devices each, connected over the loopback interface."""

import os
import socket
import subprocess
import sys
from pathlib import Path

SECONDS = 240


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes_pool_their_rows_together():
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.two_processes", str(i), "2", port],
            cwd=Path(__file__).parent.parent,
            env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    try:
        said = [process.communicate(timeout=SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == 0, text
        assert "values and gradients are equal" in text
