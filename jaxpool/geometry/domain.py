"""Every domain: what says which cells each output reads."""

from typing import TypeAlias

from jaxpool.geometry.bins import Bins
from jaxpool.geometry.links import Links
from jaxpool.geometry.window import Window

Domain: TypeAlias = Window | Bins | Links
