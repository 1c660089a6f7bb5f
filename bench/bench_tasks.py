"""The tasks that the benchmark's agents run."""

import os
import time
from contextlib import suppress
from pathlib import Path

from taskd import App, current

app = App()

EPOCH_SHIFT = 31
"""A fencing token's bits above this are the server's epoch, which rises with every start."""
STAMPED_S = 0.02

_told_epochs: set[int] = set()


@app.task
def noop(value: int) -> int:
    """Do nothing, in a worker process."""
    return value


@app.task
async def anoop(value: int) -> int:
    """Do nothing, on a worker's event loop."""
    return value


@app.task
def nap(seconds: float) -> None:
    """Sleep."""
    time.sleep(seconds)


@app.task
def talk(seconds: int, rate_bytes: int, line_bytes: int) -> int:
    """Print numbered lines at a rate; return how many."""
    number, began = 0, time.monotonic()
    pad = "x" * (line_bytes - 14)
    while (elapsed := time.monotonic() - began) < seconds:
        due = int(elapsed * rate_bytes / line_bytes)
        for count in range(number, due):
            print(f"{count:012} {pad}")
        number = max(number, due)
        time.sleep(0.02)
    return number


@app.task
def first(value: int) -> int:
    """Do nothing, after others."""
    return value


@app.task
def numbers(count: int) -> list[int]:
    """Return a list to map over."""
    return list(range(count))


@app.task
def told(directory: str, number: int) -> int:
    """Leave word that this ran."""
    descriptor = os.open(Path(directory) / f"told-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{number}\n".encode())
    os.close(descriptor)
    return number


@app.task
def stamp(directory: str) -> None:
    """Leave word, the first time for each epoch of the server, of when a body that it leased began to run.

    The word is a file named after the epoch, holding CLOCK_MONOTONIC in nanoseconds, which is
    the same for all processes of a machine.
    """
    leave_word(directory, current().fencing_token >> EPOCH_SHIFT)
    time.sleep(STAMPED_S)


@app.task
def backlog(directory: str, number: int) -> int:
    """Do nothing, but leave word as ``stamp`` does, and sleep not."""
    epoch = current().fencing_token >> EPOCH_SHIFT
    if epoch not in _told_epochs:
        _told_epochs.add(epoch)
        leave_word(directory, epoch)
    return number


def leave_word(directory: str, epoch: int) -> None:
    """Write down, the first time for an epoch, that it is now."""
    now = time.monotonic_ns()
    with suppress(FileExistsError):
        descriptor = os.open(Path(directory) / str(epoch), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(descriptor, str(now).encode())
        os.close(descriptor)


@app.task
def burn(seconds: float) -> int:
    """Use so much CPU time; return the number of the CPU, of an agent that has one."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return min(os.sched_getaffinity(0))


@app.task
def fails(value: int) -> None:
    """Die of something."""
    message = f"no such row: {value}"
    raise LookupError(message)
