"""What XLA's partitioner (jax 0.8 to 0.10) gets wrong of split arrays, and ways around.

Along an axis that is split over devices these have wrong values, or do not compile:

1. A slice or a reduction of windows with a stride above 1, of which there is only one
   cell or window. `slices.cut` and `xla.reduce_windows` use stride 1 there.
2. A pad with zeros between cells, a pad with negative amounts, and windows over dilated
   cells, where the operand is not split and the result is. `slices.pad` slices where
   amounts are negative, and the others read an array that is `loose`. jax makes such
   pads where it transposes slices and pads, so cotangents are made `loose` too.
3. Windows over dilated cells that reach beyond the next shard. Zeros between cells are
   written before windows read them (`xla.add_windows_back`).
4. A reduction of windows of several arrays where the operands are split and a result is
   not. The first result is behind a barrier; arithmetic follows on the others.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def loose(array: jax.Array) -> jax.Array:
    """The array, of which the partitioner may choose anew how it is split.

    Floats are rounded to more bits than they have, which fuses with what is around it.
    """
    if not jnp.issubdtype(array.dtype, jnp.floating):
        barred: jax.Array = lax.optimization_barrier(array)
        return barred
    info = jnp.finfo(array.dtype)
    return lax.reduce_precision(array, info.nexp, info.nmant + 1)


def loose_back(array: jax.Array) -> jax.Array:
    """The array; its tangent, and so its cotangent, is `loose`."""
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return array
    result: jax.Array = _loose_back(array)
    return result


@jax.custom_jvp
def _loose_back(array: jax.Array) -> jax.Array:
    return array


@_loose_back.defjvp
def _loose_back_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return primals[0], loose(tangents[0])


def widened(array: jax.Array, dtype: np.dtype, on_cpu: bool) -> jax.Array:
    """`array` in a dtype that holds all of its values.

    Of converted float16, LLVM takes the maximum before it converts, which it does not
    vectorise. Here it does not see that the bits it would lose are all 0.
    """
    wide: jax.Array = array.astype(dtype)
    if array.dtype == jnp.float16 and dtype == np.float32 and on_cpu:
        bits = lax.bitcast_convert_type(wide, np.int32) & np.int32(-(1 << 13))
        wide = lax.bitcast_convert_type(bits, np.float32)
    return wide
