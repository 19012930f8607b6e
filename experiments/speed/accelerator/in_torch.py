"""What PyTorch's own pools take, eager and channels last; in a process of its own."""

import contextlib
import time
from concurrent.futures import Future
from typing import Any

from experiments.speed.accelerator.cases import Case, Key, cases, of_torch
from experiments.speed.accelerator.measuring import INPUTS, seconds


def every_case(quick: bool, cpu: bool, limit: float) -> dict[Key, float]:
    """Seconds of every pass, of cases that begin within the limit."""
    import torch

    if not cpu and not torch.cuda.is_available():
        raise ImportError("PyTorch finds no GPU")
    device = "cpu" if cpu else "cuda"
    deadline = time.monotonic() + limit
    found: dict[Key, float] = {}
    for case, dtype in cases(quick):
        if time.monotonic() < deadline:
            with contextlib.suppress(NotImplementedError):
                found |= _one_case(case, dtype, device)
    return found


def _one_case(case: Case, dtype: str, device: str) -> dict[Key, float]:
    """Seconds of both passes of one case."""
    import torch

    pool = of_torch(case)
    layout = torch.channels_last if case.rank == 2 else torch.channels_last_3d

    def made(*shape: int) -> Any:
        x = torch.randn(*shape, device=device, dtype=getattr(torch, dtype))
        return x.to(memory_format=layout) if x.ndim == case.rank + 2 else x

    def forward(x: Any) -> Any:
        with torch.inference_mode():
            return pool(x)

    def backward_too(x: Any, g: Any) -> Any:
        y = pool(x)
        return y, torch.autograd.grad(y, x, g)

    def wait(_: Any) -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    xs = [made(case.shape[0], case.shape[-1], *case.spatial) for _ in range(INPUTS)]
    took = seconds(forward, [(x,) for x in xs], wait)
    found: dict[Key, float] = {(case, dtype, "forward"): took}
    gs = [made(*pool(xs[0]).shape) for _ in range(INPUTS)]
    pairs = [(x.requires_grad_(), g) for x, g in zip(xs, gs, strict=True)]
    return found | {(case, dtype, "both"): seconds(backward_too, pairs, wait)}


def collected(torch: Future[dict[Key, float]]) -> tuple[dict[Key, float], str]:
    """What PyTorch takes, and what to say of it."""
    try:
        found = torch.result()
    except Exception as error:  # of whatever type an import raises
        return {}, f"PyTorch was not timed: {type(error).__name__}: {error}"[:200]
    return found, f"{len(found)} passes of PyTorch were timed, eager, channels last"
