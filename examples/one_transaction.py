"""Many small tasks in one call: readings that come one by one, and are written in one transaction each hundred.

A transaction costs a disk flush, whether it writes one row or a hundred. Each reading is a task with a result of its
own; one that is refused fails alone.

    taskd dev one_transaction                   # in this folder: a server, and an agent that has these tasks
    python one_transaction.py                   # in another terminal: submits a thousand readings
"""

import math
import sqlite3
from contextlib import closing
from typing import TypedDict

from taskd import App, TaskFailed

app = App()

DATABASE = "readings.db"
BROKEN = 500
"""Number of a sensor that says nothing of use."""


class Reading(TypedDict):
    """What a sensor says."""

    sensor: str
    celsius: float


@app.task(batch=100, wait=0.05)
def store(readings: list[Reading]) -> list[int | Exception]:
    """Return the row of each reading, or why it has none."""
    stored: list[int | Exception] = []
    with closing(sqlite3.connect(DATABASE)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS reading (id INTEGER PRIMARY KEY, sensor TEXT, celsius REAL)")
        for reading in readings:
            if math.isnan(reading["celsius"]):
                stored.append(ValueError(f"{reading['sensor']} is broken"))
                continue
            row = connection.execute("INSERT INTO reading (sensor, celsius) VALUES (:sensor, :celsius)", reading)
            stored.append(row.lastrowid or 0)
    return stored


def main() -> None:
    """Submit readings of a thousand sensors, one of which is broken."""
    readings = [Reading(sensor=f"s{n}", celsius=math.nan if n == BROKEN else 20 + n / 100) for n in range(1_000)]
    refused = 0
    for handle in store.map(readings):
        try:
            handle.result(60)
        except TaskFailed as failed:
            refused += 1
            print(failed)
    print(f"{len(readings) - refused} stored in {DATABASE}, {refused} refused")


if __name__ == "__main__":
    main()
