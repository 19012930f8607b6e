"""
Positions
=========

Each token says its row and its column, and tokens of one tile are pooled together:
:func:`jaxpool.pool_by_positions`. So images of many shapes share one array of tokens.
"""

import numpy as np
from drawing import photograph, show
from matplotlib import pyplot as plt

import jaxpool

# %%
# Two crops of a photograph are cut into patches of 12 x 12 pixels. A token is the mean
# of a patch. The second crop has fewer patches, so padding tokens follow, at -1.

SIDE, TOKENS = 12, 32 * 32
photo = photograph()
crops = photo, photo[96:288, 96:]
tokens = np.zeros((2, TOKENS, 1), np.float32)
positions = np.full((2, TOKENS, 2), -1)
for n, crop in enumerate(crops):
    patches = jaxpool.avg_pool(crop, SIDE, axes=(0, 1))
    tokens[n, : patches.size, 0] = patches.ravel()
    positions[n, : patches.size] = np.argwhere(np.ones(patches.shape))

# %%
# Tokens may come in any order. Tiles of 2 x 2 positions are averaged; the order changes
# nothing. A tile without a token gets ``empty_value``; NaN is drawn white.

order = np.random.default_rng(0).permutation(TOKENS)
tokens, positions = tokens[:, order], positions[:, order]
tiles = jaxpool.pool_by_positions(
    tokens, positions, 2, (16, 16), empty_value=float("nan")
)

figure, axes = plt.subplots(2, 3, figsize=(9.5, 6.6))
for n, (left, middle, right) in enumerate(axes):
    show(left, crops[n], "Crop, {} x {}".format(*crops[n].shape))
    valid = positions[n, :, 0] >= 0
    show(middle, np.where(valid, tokens[n, :, 0], np.nan).reshape(32, 32), "")
    middle.set_title(f"{valid.sum()} tokens, in no order")
    show(right, tiles[n, :, :, 0], "16 x 16 tiles")
figure.suptitle("Tokens pooled by their positions")
