"""Compiling for accelerators that are not there, and counting what the programs do.

XLA's compilers need a description of the device, not the device. TPUs need the wheel
`libtpu`; GPUs the wheels of the CUDA plugin and a `GpuTargetConfigProto` as text. What
is counted is read from the compiled program; no program is run.
"""

import importlib.util
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

# What libtpu wants to know where there is no TPU; and an installed libtpu takes a lock
# of the whole machine unless jax is told to stay on the CPU.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

# What is no kernel among the instructions of a GPU program.
NO_KERNEL = ("parameter", "constant", "bitcast", "get-tuple-element", "tuple")
ATOMIC = re.compile(r"^\s*(?:@!?%p\d+\s+)?(?:atom|red)\.", re.MULTILINE)
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(\S+) = (.*?) ([a-z][a-z0-9-]*)\((.*)$")
ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")


class Target(NamedTuple):
    """A device to compile for."""

    name: str
    platform: str
    topology: str


V5E = Target("TPU v5e", "tpu", "v5e:2x2")
V6E = Target("TPU v6e", "tpu", "v6e:2x2")
H100 = Target("H100", "cuda", "1x1x1")


class Program(NamedTuple):
    """What was counted in a compiled program; `None` where it cannot be told.

    `bytes` are those that XLA's cost analysis says a TPU program accesses, in any of
    its memories. For a GPU, where it says nothing: the operands and the results of
    each kernel, once for each kernel.
    """

    seconds: float
    bytes: int
    temporaries: int
    kernels: int | None
    atomics: int | None


def missing(target: Target, gpu_target: Path | None) -> str:
    """Why the target cannot be compiled for, or nothing."""
    if target.platform == "tpu":
        found = importlib.util.find_spec("libtpu")
        return "" if found else "libtpu is not installed (extra: devices)"
    modules = "jax_plugins", "jax_plugins.xla_cuda13"  # the outer one, then the inner
    if not all(map(importlib.util.find_spec, modules)):
        return "the CUDA plugin is not installed (extra: devices)"
    if gpu_target is None:
        return "no --gpu-target FILE with a GpuTargetConfigProto as text"
    return "" if gpu_target.is_file() else f"{gpu_target} is not a file"


@lru_cache
def _device(target: Target, gpu_target: Path | None) -> Any:
    """A device of the target, as far as a compiler is concerned."""
    if target.platform == "tpu":
        made = topologies.get_topology_desc(
            platform="tpu", topology_name=target.topology
        )
    else:
        made = topologies.get_topology_desc(
            platform="cuda",
            topology=target.topology,
            target_config=(gpu_target or Path()).read_text(),
        )
    return made.devices[0]


def compiled(
    target: Target,
    gpu_target: Path | None,
    function: Callable[..., Any],
    arrays: Sequence[jax.ShapeDtypeStruct],
    deterministic: bool = False,
) -> Program:
    """Compile `function` of arrays like these for one device of the target."""
    sharding = SingleDeviceSharding(_device(target, gpu_target))
    there = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding) for a in arrays]
    traced = jax.jit(function).trace(*there)
    lowered = traced.lower(lowering_platforms=(target.platform,))
    begin = time.perf_counter()
    if target.platform == "tpu":
        made = lowered.compile()
        seconds = time.perf_counter() - begin
        accessed, kernels, atomics = made.cost_analysis()["bytes accessed"], None, None
    else:
        options: dict[str, Any] = {"xla_gpu_deterministic_ops": deterministic}
        with tempfile.TemporaryDirectory() as folder:
            made = lowered.compile(options | {"xla_dump_to": folder})
            seconds = time.perf_counter() - begin
            ptx = [path.read_text() for path in Path(folder).glob("*.ptx")]
        accessed, kernels = _kernels(made.as_text())
        atomics = sum(len(ATOMIC.findall(text)) for text in ptx)
    temporaries = made.memory_analysis().temp_size_in_bytes
    return Program(round(seconds, 1), int(accessed), temporaries, kernels, atomics)


def _kernels(hlo: str) -> tuple[int, int]:
    """The bytes that the kernels of an optimized program touch, and their number.

    Of the program itself: the kernels inside a loop count once.
    """
    entry = hlo[hlo.index("\nENTRY") :]
    sizes: dict[str, int] = {}
    accessed = kernels = 0
    for line in entry.splitlines():
        match = INSTRUCTION.match(line)
        if match is None:
            continue
        name, result, operation, operands = match.groups()
        sizes[name] = _size(result)
        if operation in NO_KERNEL:
            continue
        kernels += 1
        names = re.findall(r"%([\w.-]+)", operands.split(")")[0])
        accessed += sizes[name] + sum(sizes[operand] for operand in names)
    return accessed, kernels


def _size(text: str) -> int:
    """The bytes of all arrays in the text of a type."""
    return sum(
        math.prod(map(int, filter(None, dims.split(",")))) * _itemsize(name)
        for name, dims in ARRAY.findall(text)
    )


@lru_cache
def _itemsize(name: str) -> int:
    """The bytes of one element of an XLA type."""
    if name == "pred":
        return 1
    if name == "bf16":
        return int(np.dtype(ml_dtypes.bfloat16).itemsize)
    return int(re.findall(r"\d+", name)[0]) // 8


def prepare() -> None:
    """Set up this process and those that it will start."""
    os.environ.update(ENVIRONMENT)
    jax.config.update("jax_platforms", "cpu")
