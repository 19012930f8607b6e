"""The pools of `compat.torch`, each for any number of spatial axes, its `rank`."""
