"""A wire that misbehaves: between peers and a real server, bytes are late, come one by one, stop, or the wire is cut.

TCP neither loses nor reorders bytes within a connection; all that can happen to one is that it is slow, silent or over.
"""

import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from campaigns.report import Found
from crash.campaign import TASKD, Campaign
from harness.waiting import until

STORM_SECONDS = 3.0
CALM_SECONDS = 60.0
LATE_SECONDS = 0.2
SILENT_SECONDS = 2.0
PIECE_BYTES = 7
CHUNK_BYTES = 65_536
CHANCES = {"late": 0.05, "split": 0.05, "silent": 0.01, "cut": 0.01, "half-open": 0.002}
"""Of a chunk of bytes that passes."""


@dataclass(kw_only=True)
class Proxy:
    """Passes bytes on to the server, until it is calm in its own way."""

    server_port: int
    rng: random.Random
    calm: bool = False
    done: Counter[str] = field(default_factory=Counter)

    async def serve(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen; the task status tells the port."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = int(listeners[0].socket.getsockname()[1])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, self._pass_on, listeners)
            task_status.started(port)

    async def _pass_on(self, near: trio.SocketStream) -> None:
        try:
            far = await trio.open_tcp_stream("127.0.0.1", self.server_port)
        except OSError:
            return
        async with near, far:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, near, far, nursery.cancel_scope)
                    nursery.start_soon(self._pump, far, near, nursery.cancel_scope)

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, both: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some(CHUNK_BYTES):
                if not await self._forward(bytes(data), sink):
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        both.cancel()

    async def _forward(self, data: bytes, sink: trio.SocketStream) -> bool:
        """Send these bytes on, with or without a fault; return False when the connection is cut."""
        fault = self._choose()
        match fault:
            case "late":
                await trio.sleep(self.rng.uniform(0, LATE_SECONDS))
            case "silent":
                await trio.sleep(self.rng.uniform(0, SILENT_SECONDS))
            case "cut":
                await sink.send_all(data[: self.rng.randrange(len(data))])
                return False
            case "half-open":
                while not self.calm:  # noqa: ASYNC110 - a peer that is gone and was not heard to go
                    await trio.sleep(LATE_SECONDS)
                return False
            case "split":
                start = 0
                while start < len(data):
                    size = self.rng.randint(1, PIECE_BYTES)
                    await sink.send_all(data[start : start + size])
                    start += size
                return True
            case _:
                pass
        await sink.send_all(data)
        return True

    def _choose(self) -> str:
        chance = self.rng.random()
        if not self.calm:
            for fault, share in CHANCES.items():
                if chance < share:
                    self.done[fault] += 1
                    return fault
                chance -= share
        return ""


async def rage(rng: random.Random, home: Path, found: Found) -> None:
    """Have a client and an agent insist over that wire; then be calm, and compare with what they were told."""
    rig = Campaign(home=home, rng=rng)
    try:
        await rig.start_server()
        await rig.serving()
        async with trio.open_nursery() as nursery:
            proxy = Proxy(server_port=rig.port, rng=random.Random(rng.random()))
            rig.port = await nursery.start(proxy.serve)
            client = rig.play(nursery)
            await trio.sleep(STORM_SECONDS)
            rig.calm = proxy.calm = True
            await until(lambda: not (client.unanswered or client.waiting), CALM_SECONDS)
            standings = await rig.standings()
            rig.check(standings)
            nursery.cancel_scope.cancel()
        assert await rig.stop_server() == 0
        assert await (await rig.start([TASKD, "fsck", "--data-dir", "data"], "fsck.log")).wait() == 0
    finally:
        await rig.close()
    found.ops += len(standings)
    for fault, count in proxy.done.items():
        found.fault(fault, count)


def play(case: int, home: Path, found: Found) -> None:
    """Let a wire misbehave by chance."""
    trio.run(rage, random.Random(case), home, found)
