"""Kernels: functions of arrays that jax sees as one operation, lowered per platform.

A kernel is a hashable description, `Kernel`, that says which types it returns, and runs
for a platform. jax traces it only where a program is lowered, and for the platform that
it is lowered for. So a pool is one equation in a jaxpr, its gradient one more, and
nothing below the lowering decides on a platform again.

`bind` runs a kernel for functions with a rule of `jax.custom_vjp` or `jax.custom_jvp`,
and knows such a function for where jax drops the rule. `bind_linear` runs one that is
linear in its last operand and has a transpose: forward mode runs the kernel, reverse
mode the transpose, each as it is written.

The platform "any" stands for standard operations of jax, for every platform, which
tools that read a jaxpr know. "open" stands for operations that jax differentiates:
`inline` runs a linear kernel so for its derivative by the other operands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, Protocol, TypeAlias

import chex
import jax
from jax.dtypes import float0
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import NamedSharding, PartitionSpec

from jaxpool.engines.faults import loose_back
from jaxpool.engines.loops import Arrays

Types: TypeAlias = Sequence[Any]  # abstract arrays of jax's
Rule: TypeAlias = Callable[..., Any]
Axes: TypeAlias = tuple[int | None, ...]  # the mapped axis of each operand

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
ANY, OPEN = "any", "open"


class Kernel(Protocol):
    """A function of arrays, described by what hashes.

    If `portable`, its program must consist of standard operations of jax, which other
    tools can read.
    """

    @property
    def portable(self) -> bool:
        """Whether it is."""

    def types(self, *operands: Any) -> Types:
        """The types of the results, made of those of the operands by `update`."""

    def run(self, platform: str, *operands: Any) -> Arrays:
        """The results, computed for a platform."""


class LinearKernel(Kernel, Protocol):
    """A kernel with one result that is linear in its last operand."""

    @property
    def transpose(self) -> "LinearKernel":
        """The transpose in the last operand; the others are the same."""


def bind(kernel: Kernel, *operands: Any, rule: Rule | None = None) -> Arrays:
    """The results of a kernel. Operands are pytrees.

    `rule` is the function with a derivative that makes this call:
    `rule(kernel, *operands)` has the same results. For second derivatives inside of
    `lax.scan`, jax drops the derivative of that function and asks for that of the call.
    """
    if kernel.portable:
        return inline(kernel, *operands)
    leaves, tree = jax.tree.flatten(operands)
    return tuple(_call_p.bind(*leaves, kernel=_Flat(kernel, tree, rule)))


def bind_linear(kernel: LinearKernel, *operands: Any) -> jax.Array:
    """The result of a kernel that is linear in its last operand, an array."""
    if kernel.portable:
        return inline(kernel, *operands)[0]
    leaves, tree = jax.tree.flatten(operands)
    (result,) = _linear_p.bind(*leaves, kernel=_Flat(kernel, tree))
    return result


def inline(kernel: Kernel, *operands: Any, platform: str = ANY) -> Arrays:
    """The results, computed by operations that have derivatives."""
    return tuple(map(loose_back, _run(platform, *operands, kernel=kernel)))


@dataclass(frozen=True)
class _Flat:
    """A kernel of arrays, from one of pytrees."""

    kernel: Any
    tree: Any
    rule: Rule | None = None

    def types(self, *leaves: Any) -> Types:
        return self.kernel.types(*jax.tree.unflatten(self.tree, leaves))

    def run(self, platform: str, *leaves: Any) -> Arrays:
        operands = jax.tree.unflatten(self.tree, leaves)
        return self.kernel.run(platform, *operands)

    def derived(self, *leaves: Any) -> Any:
        """The results, with a derivative."""
        if self.rule is None:
            raise NotImplementedError(f"{self.kernel} has no derivative")
        return self.rule(self.kernel, *jax.tree.unflatten(self.tree, leaves))

    @property
    def transpose(self) -> "_Flat":
        return _Flat(self.kernel.transpose, self.tree)


@dataclass(frozen=True)
class _Mapped:
    """A kernel under `jax.vmap`; the mapped axis of a result is `out`, the first one.

    Or none, for the transpose of a kernel whose last operand is not mapped.
    """

    kernel: Any
    axes: Axes
    out: int | None = 0

    def types(self, *operands: Any) -> Types:
        pairs = tuple(zip(operands, self.axes, strict=True))
        whole, axis = next((o, axis) for o, axis in pairs if axis is not None)
        size, split = whole.shape[axis], whole.sharding.spec[axis]
        inner = (
            _resized(o, _less(o.shape, a), _less(o.sharding.spec, a)) for o, a in pairs
        )
        results: Types = self.kernel.types(*inner)
        if self.out is None:
            return results
        out = self.out
        return [
            _resized(r, _more(r.shape, out, size), _more(r.sharding.spec, out, split))
            for r in results
        ]

    def run(self, platform: str, *operands: Any) -> Arrays:
        out = 0 if self.out is None else self.out
        run = jax.vmap(partial(self.kernel.run, platform), self.axes, out)
        results: Arrays = run(*operands)
        if self.out is None:  # all that is made of one operand comes back to it
            return tuple(result.sum(0, dtype=result.dtype) for result in results)
        return results

    def derived(self, *operands: Any) -> Any:
        """The results, with a derivative."""
        return jax.vmap(self.kernel.derived, self.axes, self.out)(*operands)

    @property
    def transpose(self) -> "_Mapped":
        *others, last = self.axes
        return _Mapped(self.kernel.transpose, (*others, self.out), last)


def _less(items: Sequence[Any], axis: int | None) -> tuple[Any, ...]:
    """The items without that of an axis."""
    return tuple(item for i, item in enumerate(items) if i != axis)


def _more(items: Sequence[Any], axis: int, item: Any) -> tuple[Any, ...]:
    """The items with one more for an axis."""
    return *items[:axis], item, *items[axis:]


def _resized(operand: Any, shape: tuple[int, ...], spec: tuple[Any, ...]) -> Any:
    sharding = NamedSharding(operand.sharding.mesh, PartitionSpec(*spec))
    return operand.update(shape=shape, sharding=sharding)


def _types(*operands: Any, kernel: Kernel) -> Types:
    return kernel.types(*operands)


def _run(platform: str, *operands: Any, kernel: Kernel) -> Arrays:
    """The results, which have the types that the kernel promises."""
    results = kernel.run(platform, *operands)
    types = kernel.types(*jax.tree.map(jax.typeof, operands))
    chex.assert_trees_all_equal_shapes_and_dtypes([*results], [*types])
    return results


def _map(primitive: Primitive, operands: Any, axes: Axes, kernel: Kernel) -> Any:
    results = primitive.bind(*operands, kernel=_Mapped(kernel, axes))
    return results, [0] * len(results)


def _jvp(primals: Any, tangents: Any, kernel: LinearKernel) -> Any:
    (*others, x), (*changes, t) = primals, tangents
    results = _linear_p.bind(*primals, kernel=kernel)
    moved = [] if type(t) is ad.Zero else [*_linear_p.bind(*others, t, kernel=kernel)]
    if not all(type(change) is ad.Zero for change in changes):
        changes = [ad.instantiate_zeros(change) for change in changes]
        _, (more,) = jax.jvp(
            lambda *others: inline(kernel, *others, x, platform=OPEN),
            others,
            changes,
        )
        moved.append(more)
    return results, [reduce(ad.add_tangents, moved)]


def _jvp_by_rule(primals: Any, tangents: Any, kernel: Any) -> Any:
    """The derivative by the rule; integers have none."""
    if all(type(t) is ad.Zero for t in tangents):
        results = _call_p.bind(*primals, kernel=kernel)
        return results, [ad.Zero(jax.typeof(r).to_tangent_aval()) for r in results]
    tangents = [*map(ad.instantiate_zeros, tangents)]
    results, moved = jax.jvp(kernel.derived, [*primals], tangents)
    return [*results], [
        ad.Zero(jax.typeof(result).to_tangent_aval()) if t.dtype == float0 else t
        for result, t in zip(results, moved, strict=True)
    ]


def _transpose(cotangents: Any, *operands: Any, kernel: LinearKernel) -> Any:
    *others, _ = operands
    g = ad.instantiate_zeros(cotangents[0])
    (arrived,) = _linear_p.bind(*others, g, kernel=kernel.transpose)
    return *(None for _ in others), arrived


def _new(name: str) -> Primitive:
    """An operation of jax that runs a kernel."""
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_abstract_eval(_types)

    @partial(jax.jit, static_argnames="kernel")
    def compiled(*operands: Any, kernel: Kernel) -> Any:
        return primitive.bind(*operands, kernel=kernel)

    def evaluate(*operands: Any, kernel: Kernel) -> Any:
        if jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return _run(ANY, *operands, kernel=kernel)
        return compiled(*operands, kernel=kernel)

    primitive.def_impl(evaluate)
    batching.primitive_batchers[primitive] = partial(_map, primitive)
    mlir.register_lowering(primitive, mlir.lower_fun(partial(_run, ANY)))
    for platform in PLATFORMS:
        lowering = mlir.lower_fun(partial(_run, platform))
        mlir.register_lowering(primitive, lowering, platform=platform)
    return primitive


_call_p, _linear_p = _new("jaxpool"), _new("jaxpool_linear")
ad.primitive_jvps[_call_p], ad.primitive_jvps[_linear_p] = _jvp_by_rule, _jvp
ad.primitive_transposes[_linear_p] = _transpose
