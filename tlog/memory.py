"""Memory that was freed and is given back to the system, which the C library does not do by itself."""

import ctypes


def give_back() -> None:
    """Give back what is free; do nothing where the C library has no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
