"""Other libraries' pools, with their names, arguments, defaults and layouts.

`from jaxpool.compat import torch as pools` (or `flax`, `keras`, `onnx`) is one line to
port. They hold pools alone, so not `as nn`, `F` or `ops`: `nn.Conv` would be gone.
docs/coming_from/ says what each call is natively, and what differs. None of them
imports the library that it is named after.
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
