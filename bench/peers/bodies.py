"""What the tasks do: the same functions for every peer. Each takes a number, and returns it."""

import os
import time
from pathlib import Path

from peers.interface import Place

NAP_S = 0.001
"""Of a task that leaves word: so that work queues up before the broker is killed."""


def noop(value: int) -> int:
    """Do nothing."""
    return value


def burn(value: int) -> int:
    """Use so many microseconds of CPU."""
    until = time.thread_time_ns() + value * 1000
    while time.thread_time_ns() < until:
        pass
    return value


def told(value: int) -> int:
    """Leave word that this ran: a line in a file of this process's own."""
    path = Path(Place.here().directory) / "ledger" / str(os.getpid())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{value}\n".encode())
    os.close(descriptor)
    time.sleep(NAP_S)
    return value
