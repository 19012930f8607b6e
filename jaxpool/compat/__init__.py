"""Other libraries' pools, with their names, arguments, defaults and layouts.

`from jaxpool.compat import torch as F` (or `flax`, `keras`, `onnx`) is one line to
port. PORTING.md says what each call is natively, and what differs. None of them imports
the library that it is named after.
"""
