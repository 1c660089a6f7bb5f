"""The client's clock: the one place of the client that reads one."""

import time


def mono_s() -> float:
    """Return seconds since an arbitrary start; never steps."""
    return time.monotonic()
