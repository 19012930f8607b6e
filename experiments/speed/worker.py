"""A process that measures the jaxpool of one checkout, for `benchmark --baseline`.

The process imports jaxpool from the checkout that it is given, so nothing at the top of
this module imports jaxpool. It calls public functions only, because another checkout
may have other modules.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.speed.timing import CALLS_A_TURN, keep_memory


class Case(NamedTuple):
    """A public function of jaxpool, its array and its options, for one measurement."""

    label: str
    kind: str
    passes: str
    function: str
    shape: tuple[int, ...]
    options: Mapping[str, Any]
    is_common: bool


class Program(NamedTuple):
    """The memory that a compiled case takes."""

    temporaries: int  # bytes
    kept: int  # bytes kept for backward, where there is one


class Worker:
    """A process for one checkout; `send` a request, then `receive` its answer."""

    def __init__(self, checkout: Path, keep: bool):
        """Start the process, and wait until it has imported jaxpool."""
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        arguments = other, checkout.resolve(), keep
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        other.close()
        self.receive()

    def send(self, request: Case | int) -> None:
        """Ask for a case to be prepared, or for its time in some calls."""
        self._pipe.send(request)

    def receive(self) -> Any:
        """Wait for the answer: a `Program` and its results, or a list of seconds."""
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def seconds(self, calls: int = CALLS_A_TURN) -> list[float]:
        """Take one turn: the seconds of some calls of the prepared case."""
        self.send(calls)
        return self.receive()

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(10)


def _serve(pipe: Connection, checkout: Path, keep: bool) -> None:
    """Answer requests until the other end of the pipe is closed."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if keep:
        keep_memory()
    call = None
    try:
        pipe.send(_import(checkout))
        while True:
            request = pipe.recv()
            if isinstance(request, int):
                pipe.send(_timed(call, request))
                continue
            try:
                answer, call = _prepared(request)
                pipe.send(answer)
            except Exception as error:  # of whatever type a checkout raises
                text = f"{type(error).__name__}: {str(error)[:200]}"
                pipe.send(RuntimeError(text))
    except EOFError:
        return


def _import(checkout: Path) -> str | Exception:
    """Import jaxpool from the checkout and from nowhere else; return its file."""
    sys.path.insert(0, str(checkout))
    import jaxpool

    file = Path(jaxpool.__file__ or "").resolve()
    if file.parents[1] != checkout:
        return ImportError(f"jaxpool was imported from {file}, not from {checkout}")
    return str(file)


def _timed(call: Any, calls: int) -> list[float]:
    call()  # threads of the other process may still spin
    seconds = []
    for _ in range(calls):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return seconds


def _prepared(case: Case) -> tuple[tuple[Program, list[np.ndarray]], Any]:
    """Compile a case and run it once; return what is said of it, and the call."""
    import jaxpool
    from experiments.speed import peers

    function = getattr(jaxpool, case.function)

    def pool(x: jax.Array) -> jax.Array:
        return function(x, **case.options)

    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random(case.shape, np.float32))
    g = jnp.asarray(rng.random(jax.eval_shape(pool, x).shape, np.float32))
    compiled = peers.compiled(pool, case.passes, x, g)
    arrays = peers.arguments(case.passes, x, g)
    back = []
    if case.passes == "both":  # what the function that goes back holds
        back = jax.tree.leaves(jax.eval_shape(lambda x: jax.vjp(pool, x)[1], x))
    program = Program(
        temporaries=compiled.memory_analysis().temp_size_in_bytes,
        kept=sum(leaf.size * leaf.dtype.itemsize for leaf in back),
    )
    results = [np.asarray(leaf) for leaf in jax.tree.leaves(compiled(*arrays))]
    return (program, results), lambda: jax.block_until_ready(compiled(*arrays))
