"""What a user's checkers see of functions and modules: arguments and results."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from tests import typed_user

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_mypy_reports_the_marked_errors_only():
    pytest.importorskip("mypy")
    path = Path(typed_user.__file__).relative_to(ROOT)
    marked = [
        (number, code)
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1)
        for code in line.partition("# error: ")[2].split()
    ]
    assert len(marked) > 30
    command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = re.findall(r"^(.+?):(\d+): error: .*\[(.+)\]$", done.stdout, re.M)
    assert {name for name, _, _ in found} == {str(path)}, done.stdout + done.stderr
    assert sorted((int(line), code) for _, line, code in found) == sorted(marked)


@pytest.mark.slow
def test_pyright_reports_the_marked_errors_only():
    pytest.importorskip("basedpyright")
    path = Path(typed_user.__file__).relative_to(ROOT)
    lines = enumerate((ROOT / path).read_text().splitlines(), 1)
    marked = {number for number, line in lines if "# error: " in line}
    options = ["--outputjson", "--pythonpath", sys.executable]
    command = [sys.executable, "-m", "basedpyright", *options, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    reported = json.loads(done.stdout)["generalDiagnostics"]
    errors = [each for each in reported if each["severity"] == "error"]
    assert {each["range"]["start"]["line"] + 1 for each in errors} == marked, errors


def test_what_mypy_accepts_runs():
    x = jax.numpy.ones((2, 6, 6, 3))
    typed_user.right_functions(x, x > 0)
    modules = typed_user.right(x, x > 0)
    assert [type(module).__module__ for module in modules] == ["jaxpool.linen"] * 8


CALLS = inspect.getsource(typed_user.wrong).splitlines()[2:]


@pytest.mark.parametrize("line", [line.strip() for line in CALLS])
def test_what_mypy_refuses_is_refused(line):
    if not re.match(r"lp.*\)\(", line):  # Linen modules are called by `apply` only
        with pytest.raises((TypeError, ValueError, AttributeError)):
            exec(line, vars(typed_user) | {"x": jax.numpy.ones((2, 6, 6, 3))})
