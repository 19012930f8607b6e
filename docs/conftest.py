"""Examples of the pages run with the settings of JAX that a user has."""

import jax
import pytest

# They need the extra `docs`, and the build of the site runs them.
collect_ignore = ["_build", "drawing.py", "gallery", "pictures"]


@pytest.fixture(autouse=True)
def _promotion():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
