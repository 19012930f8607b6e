"""Errors in the words of the function that was called."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def spelled(**names: str) -> Iterator[None]:
    """Let errors name arguments as the caller spelled them: `window="pool_size"`.

    What is renamed is the argument that a rule is about, and those whose values are
    told: "window must ...; got window=0 for x.shape=(3,)". Also a decorator.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise
        message = str(error)
        for ours, theirs in names.items():
            told = rf"^{ours}(?= must)|\b{ours}(?==|\.shape=|\.dtype=)"
            message = re.sub(told, theirs, message)
        raise type(error)(message) from None
