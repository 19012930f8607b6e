"""Faults of XLA and of jax, and the ways around them: one function for each fault.

Each docstring says what the function returns, and then:

    Fault: what goes wrong without the function.
    Seen: the versions of jax that have the fault.
    Test: a test that fails without the function.

Delete a function when its test passes without it. Faults of the partitioner concern
arrays that are split over devices; some end the process.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec

from jaxpool.geometry.sizes import is_symbolic

_COMBINED = (lax.add, lax.max, lax.min, lax.bitwise_or)


def stride_of(stride: int, count: int) -> int:
    """The stride of a slice, or of windows, that has `count` cells; 1 for one cell.

    Fault: the partitioner reads a wrong cell where the only cell, or the only window,
        of a split axis has a stride above 1.
    Seen: jax 0.8 to 0.10.
    Test: attack/test_sharding.py::test_cases_that_failed[E1_avg]
    """
    return 1 if count in (0, 1) else stride


def pad(
    array: jax.Array, fill: Any, config: Sequence[tuple[int, int, int]]
) -> jax.Array:
    """`lax.pad`, with slices for negative amounts; cells that move apart are `loose`.

    Amounts are not negative where there is something between cells.

    Fault: of an operand that is not split and a result that is, the partitioner pads
        wrongly with negative amounts, and between cells.
    Seen: jax 0.8 to 0.10.
    Test: engines/test_faults.py::test_a_pad_whose_result_alone_is_split
    """
    starts = [max(0, -low) for low, _, _ in config]
    behind = [max(0, -high) for _, high, _ in config]
    if any(starts) or any(behind):
        pairs = zip(array.shape, behind, strict=True)
        array = lax.slice(array, starts, [size - crop for size, crop in pairs])
    config = [(max(0, low), max(0, high), between) for low, high, between in config]
    if not any(map(any, config)):
        return array
    array = loose(array) if any(between for *_, between in config) else array
    return lax.pad(array, jnp.asarray(fill, array.dtype), config)


def moved_apart(array: jax.Array, between: Mapping[int, int]) -> jax.Array:
    """The array with zeros between the cells of some axes, for windows over it.

    Fault: the partitioner exchanges too few cells for windows over dilated cells
        (`base_dilation`) that reach beyond the next shard.
    Seen: jax 0.8 to 0.10.
    Test: engines/test_faults.py::test_cotangents_of_windows_beyond_the_next_shard
    """
    config = [(0, 0, between.get(axis, 0)) for axis in range(array.ndim)]
    return pad(array, np.zeros((), array.dtype), config)


def loose(array: jax.Array) -> jax.Array:
    """The array, of which the partitioner may choose anew how it is split.

    Floats are rounded to more bits than they have, which fuses with what is around it.

    Fault: the partitioner splits the operand of a pad as the result is split, although
        its cells lie elsewhere.
    Seen: jax 0.8 to 0.10.
    Test: attack/test_sharding.py::test_cases_that_failed[E3]
    """
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return lax.optimization_barrier(array)
    info = jnp.finfo(array.dtype)
    return lax.reduce_precision(array, info.nexp, info.nmant + 1)


def loose_back(array: jax.Array) -> jax.Array:
    """The array; its tangent, and so its cotangent, is `loose`.

    Fault: as `loose`, for the pads that jax makes where it transposes slices and pads.
    Seen: jax 0.8 to 0.10.
    Test: attack/test_sharding.py::test_cases_that_failed[cotangents_that_do_not_divide]
    """
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return array
    return _loose_back(array)


@jax.custom_jvp
def _loose_back(array: jax.Array) -> jax.Array:
    return array


@_loose_back.defjvp
def _loose_back_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return primals[0], loose(tangents[0])


def told_apart(
    arrays: list[jax.Array], fill: Any, axes: Sequence[int]
) -> tuple[list[jax.Array], Mapping[int, int]]:
    """Operands of `lax.reduce_window` over `axes` that depend on the identity `fill`.

    Returns them, and the dilation of an axis with windows of one cell. One array of
    floats is rounded to more bits than it has, which fuses. Else one cell is dilated,
    with which a TPU's compiler fuses nothing; a TPU minds it least at the end. Traced
    identities are not distinguished.

    Fault: of reductions of one array by the same windows, the partitioner pads the
        array once, with the identity of the first. The others are silently wrong.
    Seen: jax 0.10.
    Test: engines/test_sharding.py::test_xlas_own_windows_are_right_beside_each_other
    """
    first, *others = arrays
    number = _number_of(fill)
    if not number:
        return arrays, {}
    if not others and jnp.issubdtype(first.dtype, jnp.floating):
        info = jnp.finfo(first.dtype)
        return [lax.reduce_precision(first, info.nexp, info.nmant + number)], {}
    free = [axis for axis in range(first.ndim) if axis not in axes]
    if not free:
        return [jnp.expand_dims(a, -1) for a in arrays], {first.ndim: 1 + number}
    return arrays, {free[-1]: 1 + number}


def _number_of(fill: Any) -> int:
    """A number for each identity: 0 for 0, and another one for another identity."""
    if isinstance(fill, jax.core.Tracer):
        return 1
    bits = np.asarray(fill).tobytes()
    return 2 + zlib.crc32(bits) % 65_521 if any(bits) else 0


def first_barred(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """The results of one `lax.reduce_window`; the first of several is barred.

    Arithmetic follows on the others.

    Fault: the partitioner may end the process where the operands of a reduction of
        several arrays are split and a result is not.
    Seen: jax 0.8 to 0.10.
    Test: engines/test_faults.py::test_windows_whose_values_alone_are_not_split
    """
    first, *others = arrays
    return [lax.optimization_barrier(first), *others] if others else [first]


def devices_combine(computation: Any, count: int) -> bool:
    """Whether `lax.reduce` of `count` arrays may go over a split axis.

    Fault: devices combine their parts of one array by sums, maxima and minima alone;
        of other operations the program does not compile.
    Seen: jax 0.10.
    Test: engines/test_sharding.py::test_parts_of_whole_axes_that_devices_cannot_combine
    """
    return count > 1 or computation in _COMBINED


def split_as(
    function: Callable[..., Any], spec: PartitionSpec, axes: Sequence[int]
) -> Callable[..., Any]:
    """The function, of whose results some axes are split as in `spec`.

    Fault: where a result of XLA's own windows is not split as the input is, the
        partitioner makes programs that do not compile, or ends the process.
    Seen: jax 0.10.
    Test: attack/test_sharding.py::test_cases_that_failed[
        E4_windows_that_do_not_divide_and_span_the_axis]
    """
    layout = [PartitionSpec.UNCONSTRAINED] * len(spec)
    for axis in axes:
        layout[axis] = spec[axis]
    split = partial(lax.with_sharding_constraint, shardings=PartitionSpec(*layout))
    return lambda *arrays: jax.tree.map(split, function(*arrays))


def padded_before(
    arrays: list[jax.Array], fills: Sequence[Any], padding: list[tuple[Any, Any]]
) -> tuple[list[jax.Array], list[tuple[Any, Any]]]:
    """Operands and padding of `lax.reduce_window`; symbolic padding is done before.

    Fault: jax writes symbolic padding of a window as a program of its own, which may
        not call functions such as `jnp.where` in the computation.
    Seen: jax 0.10.
    Test: engines/test_export.py::test_windows_over_open_sizes[max]
    """
    if not any(is_symbolic(n) for pair in padding for n in pair):
        return arrays, padding
    config = [(*pair, 0) for pair in padding]
    padded = [
        lax.pad(array, jnp.asarray(fill, array.dtype), config)
        for array, fill in zip(arrays, fills, strict=True)
    ]
    return padded, [(0, 0)] * len(padding)


def zero_where_empty(sums: jax.Array, counts: Any) -> jax.Array:
    """Sums that jax differentiates, and 0 without a derivative in empty windows.

    Fault: where an axis has one cell, XLA sends it the cotangent of a window of
        padding only.
    Seen: jax 0.10.
    Test: engines/test_faults.py::test_a_window_of_padding_only_has_no_cotangent
    """
    return jnp.where(counts > 0, sums, np.zeros((), sums.dtype))


def compared_in(dtype: np.dtype, portable: bool) -> np.dtype:
    """The dtype in which XLA's own windows compare: float32 for short floats.

    In a `portable` program, which a CPU may run.

    Fault: XLA:CPU hands maxima and minima of windows that tile large arrays to a
        library, with the conversion of bfloat16 before them: half of the results are
        those of other windows.
    Seen: jax 0.10.2, not 0.8.2 nor 0.12.0.
    Test: engines/test_faults.py::test_short_floats_in_windows_that_tile_a_large_array
    """
    is_short = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
    return np.dtype(np.float32) if portable and is_short else dtype


def with_nan(
    values: jax.Array, is_nan: jax.Array, maxima: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """The extremes of windows, and NaN where a window has one.

    `maxima` returns the maximum of each window; whether it has a NaN is one too.

    Fault: XLA:CPU hands maxima and minima of windows that tile large arrays to a
        library, which drops NaN.
    Seen: jax 0.10.
    Test: engines/test_faults.py::test_windows_that_tile_a_large_array_keep_nan
    """
    has = maxima(is_nan.astype(np.float32)) > 0
    return jnp.where(has, np.asarray(np.nan, values.dtype), values)


@jax.custom_jvp
def divide(sums: jax.Array, number: jax.Array) -> jax.Array:
    """`sums / number`, rounded once, also where `number` is known when compiling.

    A number that depends on the data cannot be replaced.

    Fault: XLA replaces the division by a constant with the product with its
        reciprocal, which makes 77/7 11.000001.
    Seen: jax 0.10.
    Test: aggregations/test_dtypes.py::test_jitted_global_average_of_ones_is_exactly_one
    """
    return sums / jnp.where(sums == sums, number, jnp.ones_like(number))


@divide.defjvp
def _divide_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, Any]
) -> tuple[jax.Array, jax.Array]:
    """The number is constant; it divides the tangent of a sum that is NaN, too."""
    (sums, number), (t, _) = primals, tangents
    return divide(sums, number), t / number
