"""Errors in the words of the function that was called."""

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def spelled(**names: str) -> Iterator[None]:
    """Let errors name arguments as the caller spelled them: `window="pool_size"`.

    What is renamed is the argument that a rule is about, and those whose values are
    told: "window must ...; got window=0 for x.shape=(3,)". Errors that are not raised
    here, such as those of a caller's own function, stay as they are. Also a decorator.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError) or not _is_ours(error):
            raise
        message = str(error)
        for ours, theirs in names.items():
            told = rf"^{ours}(?= must)|\b{ours}(?==|\.shape=|\.dtype=)"
            message = re.sub(told, theirs, message)
        raise type(error)(message).with_traceback(error.__traceback__) from None


def _is_ours(error: Exception) -> bool:
    """Whether the line that raised it is one of this library."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals["__name__"]).startswith("jaxpool.")
