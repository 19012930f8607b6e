"""Other libraries' pools, with their names, arguments, defaults and layouts.

Port with one line: `from jaxpool.compat import torch as pools` (or `flax`, `keras`,
`onnx`). Do not import them as `nn`, `F` or `ops`: they hold only pools. The native call
for each of them, and what differs, is in docs/coming_from/. No module imports the
library that it is named after.
"""

import importlib
from typing import TYPE_CHECKING

__all__ = ["flax", "keras", "onnx", "torch"]

if TYPE_CHECKING:
    from jaxpool.compat import flax as flax
    from jaxpool.compat import keras as keras
    from jaxpool.compat import onnx as onnx
    from jaxpool.compat import torch as torch
else:

    def __getattr__(name: str) -> object:
        """Import a dialect that is used for the first time."""
        if name in __all__:
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """What there is, imported or not."""
        return sorted({*globals(), *__all__})
