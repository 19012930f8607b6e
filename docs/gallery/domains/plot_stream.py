"""
Streams
=======

The input comes in chunks, and the pool keeps a state between them:
:func:`jaxpool.stream`. The windows are causal. However the input is cut, the outputs
are the same, bit for bit.
"""

import jax
import jax.numpy as jnp
import numpy as np
from drawing import draw_signal, signal
from matplotlib import pyplot as plt

import jaxpool

line = signal()
init, step = jaxpool.stream("avg", jaxpool.windows(8, 1, "CAUSAL", axes=0))
step = jax.jit(step)


def pooled(chunks):
    """Return the outputs of all chunks, one after the other."""
    state, outputs = init(line.shape, line.dtype), []
    for chunk in np.split(line, np.cumsum(chunks)[:-1]):
        state, output = step(state, chunk)
        outputs.append(output)
    return jnp.concatenate(outputs)


cuts = [20, 20, 20], [7, 30, 3, 20]
results = [pooled(chunks) for chunks in cuts]
assert (results[0] == results[1]).all()

figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), sharey=True)
for ax, chunks, result in zip(axes, cuts, results, strict=True):
    draw_signal(ax)
    ax.plot(result, color="C1", label="average of the last 8 cells")
    for edge in np.cumsum(chunks)[:-1]:
        ax.axvline(edge - 0.5, color="C0", linestyle="--", linewidth=1.5)
    ax.legend(loc="upper right")
    ax.margins(y=0.25)
    ax.set_title(f"Chunks of {', '.join(map(str, chunks))} cells")
axes[1].set_ylabel("")
figure.suptitle("A stream, cut in two ways: the outputs have the same bits")
