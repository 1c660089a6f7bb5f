"""NATS JetStream: a work-queue stream, workers that pull in batches, results published back.

python -m peers.adapters.nats      is a worker
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress

import nats
import uvloop
from nats.js.api import AckPolicy, ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from peers import bodies
from peers.adapters import running
from peers.interface import Argv, Broker, Place, python

BATCH = 256
EXPIRES_S = 1.0
"""A pull ends by then, however few tasks there were."""
LOST_S = 1.5
"""Of a pull that is not heard of for so long the broker knows nothing: it was started anew."""
SUBJECT, RESULTS, GROUP = "tasks", "results", "workers"


class Peer(running.AsyncAdapter):
    """NATS JetStream."""

    packages = ("nats-py", "uvloop")
    modes = {
        "fast": "file storage, synced every two minutes, its default; workers pull 256 at a time, done as they come"
    }
    durable = ()
    differs = (
        "A log of messages: results are published to whoever listens and kept nowhere. Debian's version cannot fsync"
        " before it acknowledges, so it has no durable mode here."
    )

    def broker(self) -> Broker:
        where = ["-a", "127.0.0.1", "-p", str(self.place.port), "-sd", f"{self.place.directory}/jetstream"]
        return Broker(["nats-server", "-js", *where], ["nats-server", "--version"])

    def workers(self) -> list[Argv]:
        return [python("peers.adapters.nats")] * self.place.workers

    def open(self) -> None:
        self.run(self._open())

    async def _open(self) -> None:
        self.connection = await nats.connect(f"nats://127.0.0.1:{self.place.port}", max_reconnect_attempts=0)
        self.stream = self.connection.jetstream(publish_async_max_pending=4_000)
        with suppress(Exception):
            await _prepare(self.stream)
        self.ended: dict[int, int] = {}
        self.arrived = asyncio.Event()
        self.next = 0
        await self.connection.subscribe(RESULTS, cb=self._on_results)

    async def _on_results(self, message: object) -> None:
        self.ended.update(json.loads(message.data))
        self.arrived.set()

    def submit_many(self, body: str, values: Sequence[int]) -> list[object]:
        async def submit() -> list[object]:
            numbers = range(self.next, self.next + len(values))
            self.next += len(values)
            pending = []
            for number, value in zip(numbers, values, strict=True):
                pending.append(await self.stream.publish_async(SUBJECT, _pack(body, number, value), wait_stall=30))
            await asyncio.gather(*pending)
            return list(numbers)

        return self.run(submit())

    async def asubmit(self, body: str, value: int) -> object:
        number, self.next = self.next, self.next + 1
        await self.stream.publish(SUBJECT, _pack(body, number, value))
        return number

    def submit(self, body: str, value: int) -> object:
        return self.run(self.asubmit(body, value))

    def results(self, handles: Sequence[object], within_s: float) -> list[int]:
        async def wait() -> list[int]:
            async with asyncio.timeout(within_s):
                for number in handles:
                    while str(number) not in self.ended:
                        self.arrived.clear()
                        await self.arrived.wait()
            return [self.ended.pop(str(number)) for number in handles]

        return self.run(wait())

    def close(self) -> None:
        self.run(self.connection.close())


def _pack(body: str, number: int, value: int) -> bytes:
    return json.dumps([body, number, value]).encode()


async def _prepare(stream: object) -> None:
    """Make the stream and its consumer, if nobody did before."""
    try:
        await stream.stream_info("bench")
    except NotFoundError:
        config = {"retention": RetentionPolicy.WORK_QUEUE, "storage": StorageType.FILE}
        await stream.add_stream(StreamConfig(name="bench", subjects=[SUBJECT], **config))
    policy = ConsumerConfig(durable_name=GROUP, ack_policy=AckPolicy.EXPLICIT, max_ack_pending=20_000)
    with suppress(Exception):
        await stream.add_consumer("bench", policy)


async def _work(place: Place) -> None:
    """Have one pull after another under way, and do what it brings as it comes.

    The client's own ``fetch`` comes back when its batch is full or its time is over, however few tasks there are.
    """
    connection = await nats.connect(
        f"nats://127.0.0.1:{place.port}", max_reconnect_attempts=-1, reconnect_time_wait=0.1
    )
    await _prepare(connection.jetstream())
    inbox = connection.new_inbox()
    pulled = await connection.subscribe(inbox)
    pull = json.dumps({"batch": BATCH, "expires": int(EXPIRES_S * 1e9)}).encode()
    while True:
        await connection.publish(f"$JS.API.CONSUMER.MSG.NEXT.bench.{GROUP}", pull, reply=inbox)
        left = BATCH
        while left > 0:
            try:
                messages = [await pulled.next_msg(LOST_S)]
            except nats.errors.TimeoutError:
                break
            while pulled.pending_msgs:
                messages.append(await pulled.next_msg())
            tasks = [message for message in messages if message.reply]
            left = 0 if len(tasks) < len(messages) else left - len(tasks)  # what is no task says that the pull is over
            if tasks:
                await _do(connection, tasks)


async def _do(connection: object, tasks: Sequence[object]) -> None:
    ended = {}
    for message in tasks:
        body, number, value = json.loads(message.data)
        ended[number] = getattr(bodies, body)(value)
    for message in tasks:
        await message.ack()
    await connection.publish(RESULTS, json.dumps(ended).encode())


if __name__ == "__main__":
    uvloop.run(_work(Place.here()))
