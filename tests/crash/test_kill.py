"""``kill -9`` in the middle of writing: what was said to be durable is there, in whole batches."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import trio

from crash.images import expected, open_at, read_all

WRITER = """
import sys, trio
from pathlib import Path
from crash.images import open_at, write_batch

async def main():
    store = open_at(Path(sys.argv[1]))
    while True:
        for _ in range(5):
            write_batch(store, store.staged_sequence + 1)
        print(await store.flush(), flush=True)

trio.run(main)
"""


async def write_until_killed(path: Path, acknowledgements: int) -> int:
    """Run the writer, kill it after so many flushes; return the last batch that it said was durable."""
    writer = await trio.lowlevel.open_process(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert writer.stdout is not None
    text = b""
    async for part in writer.stdout:
        text += part
        if text.count(b"\n") >= acknowledgements:
            writer.kill()  # what it had said before is read to the end
    assert await writer.wait() == -signal.SIGKILL
    return int(text[: text.rindex(b"\n")].split()[-1])


async def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(0)
    path = tmp_path / "store"
    acknowledged = 0
    for _ in range(4):
        acknowledged = max(acknowledged, await write_until_killed(path, rng.randint(1, 40)))
        store = open_at(path)
        assert store.staged_sequence >= acknowledged
        assert await read_all(store) == expected(store.staged_sequence)
        acknowledged = store.durable_sequence
        await store.close()
    assert acknowledged > 50
