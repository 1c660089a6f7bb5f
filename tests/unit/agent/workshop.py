"""A real worker on a bench: what it is told, what it says, and how it ends."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import trio

from harness.specs import changed
from taskd.agent import wire
from taskd.agent.executors.seat import Hand
from taskd.agent.platform import Exit
from taskd.agent.processes import Worker
from taskd_protocol.payload import pack_arguments, unpack
from taskd_protocol.resources import Granted, Hold
from taskd_protocol.task import Failure, Grant, TaskSpec
from unit.agent.making import task_id

JOBS = '''
import asyncio, os, signal, sys, threading, time
import trio
from taskd.client.app import App
from taskd.client.context import current, current_batch
from taskd.client.raising import NonRetryable, RetryAfter

app = App()

class Odd:
    pass

class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")

@app.task(name="echo")
def echo(value=None, *more, **named):
    return [value, *more, named] if more or named else value

@app.task(name="who")
def who():
    c = current()
    return [c.id, c.name, c.queue, c.attempt, c.fencing_token, c.traceparent]

@app.task(name="fail")
def fail(kind):
    if kind == "value":
        raise ValueError("first line\\nsecond line")
    if kind == "exit":
        sys.exit(3)
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "mute":
        raise Mute
    if kind == "surrogate":
        raise ValueError("bad \\udcff name")
    if kind == "deep":
        def down(n):
            exec("x = 1") if n == 0 else down(n - 1)
            raise ValueError("x" * 200_000)
        down(3)

def judged(kind):
    raise {"later": RetryAfter(1.5), "never": NonRetryable("no use"), "key": KeyError("k")}[kind]

app.task(name="judged")(judged)

@app.task(name="ajudged")
async def ajudged(kind):
    judged(kind)

@app.task(name="odd")
def odd():
    return Odd()

@app.task(name="large")
def large(size):
    return bytes(size)

@app.task(name="die")
def die(how):
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), getattr(signal, how))

@app.task(name="until")
def until(path):
    while not os.path.exists(path):
        time.sleep(0.005)
    return path

@app.task(name="mark")
def mark(path):
    with open(path, "a") as file:
        file.write("x")

@app.task(name="fork")
def fork():
    return os.fork() != 0

@app.task(name="daemon")
def daemon(path, seconds=1000):
    """Detach a grandchild as daemons do: forked twice, in a session of its own."""
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open(path + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(path + ".new", path)
        time.sleep(1000)
    while not os.path.exists(path):
        time.sleep(0.005)
    time.sleep(seconds)

@app.task(name="csleep")
def csleep(seconds):
    time.sleep(seconds)

@app.task(name="busy")
def busy():
    while True:
        pass

@app.task(name="deaf")
def deaf():
    """Take no notice of TERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(0.01)

@app.task(name="polite")
def polite(then="raise", path=None):
    """End when told to, in the way asked for."""
    if path:
        mark(path)
    while not current().cancelled:
        time.sleep(0.005)
    if then == "raise":
        current().raise_if_cancelled()
    return then

@app.task(name="stages")
def stages(count, then_silent=False):
    """Tell how far it has come, going on where the attempt before was."""
    c = current()
    for step in range(c.heartbeat_details or 0, count):
        c.heartbeat(step + 1)
        time.sleep(0.01)
    if then_silent:
        time.sleep(1000)
    return c.heartbeat_details

@app.task(name="threaded")
def threaded(count):
    """Tell from threads beside the one that runs."""
    c = current()
    threads = [threading.Thread(target=c.heartbeat, args=(["x" * 10_000, n],)) for n in range(count)]
    for thread in threads:
        thread.start()
    c.heartbeat(["x" * 10_000, count])
    for thread in threads:
        thread.join()
    return count

leak = __import__("contextvars").ContextVar("leak", default=0)

@app.task(name="leaky")
def leaky():
    before = leak.get()
    leak.set(before + 1)
    return before

@app.task(name="scribble")
def scribble():
    """Write over every pipe there is."""
    for fd in range(3, 30):
        try:
            os.write(fd, b"\\xff" * 100)
        except OSError:
            pass
    time.sleep(1000)

@app.task(name="having")
def having(spoil=False):
    """Tell what this attempt has of the machine, in this thread and in one that it starts."""
    seen = []
    thread = threading.Thread(target=lambda: seen.append(sorted(os.sched_getaffinity(0))))
    thread.start()
    thread.join()
    names = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
    told = [os.environ.get(name) for name in names]
    held = {name: [each.amount, *each.items] for name, each in current().resources.items()}
    if spoil:
        os.environ.pop(names[0])
        os.environ[names[1]] = "spoilt"
        raise SystemExit
    return [held, told, sorted(os.sched_getaffinity(0)), *seen]

@app.task(name="take")
def take(size, seconds=0):
    held = b"x" * size
    time.sleep(seconds)
    return len(held)

@app.task(name="ahaving")
async def ahaving():
    return {name: each.amount for name, each in current().resources.items()}

@app.task(name="halves", batch=10)
def halves(numbers):
    """Tell of each, as it says of itself: half of it, an error, or that the call goes wrong for all."""
    tokens = [each.fencing_token for each in current_batch()]
    if "raise" in numbers:
        raise LookupError("all of them")
    if "short" in numbers:
        return numbers[1:]
    if "patient" in numbers:
        while not any(each.cancelled for each in current_batch()):
            time.sleep(0.005)
        return [each.cancelled for each in current_batch()]
    return [ValueError(n) if isinstance(n, str) else [token, n / 2] for token, n in zip(tokens, numbers, strict=True)]

@app.task(name="ahalves", batch=10)
async def ahalves(numbers):
    await asyncio.sleep(0)
    if "forever" in numbers:
        await asyncio.Event().wait()
    return halves(numbers)

@app.task(name="aecho")
async def aecho(value=None):
    return value

@app.task(name="alarge")
async def alarge(size):
    return bytes(size)

@app.task(name="awho")
async def awho():
    await asyncio.sleep(0)
    return current().fencing_token

together = 0

@app.task(name="ameet")
async def ameet(count):
    """Return only once so many run at the same time."""
    global together
    together += 1
    while together < count:
        await asyncio.sleep(0.001)
    return count

@app.task(name="afail")
async def afail():
    await asyncio.sleep(0)
    raise ValueError("later")

@app.task(name="aforever")
async def aforever():
    await asyncio.Event().wait()

@app.task(name="astubborn")
async def astubborn():
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

@app.task(name="apolite")
async def apolite(path):
    """See that it is to end, and leave a word."""
    try:
        await asyncio.Event().wait()
    finally:
        with open(path, "w") as file:
            file.write(str(current().cancelled))

@app.task(name="abusy")
async def abusy():
    while True:
        pass

@app.task(name="abrief")
async def abrief(seconds):
    await asyncio.sleep(seconds)
    return seconds

@app.task(name="adie")
async def adie(wait=True):
    if wait:
        await asyncio.sleep(0.01)
    os._exit(9)

@app.task(name="atimely")
async def atimely():
    """End a wait by a time limit of its own, which needs a task of its own."""
    try:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    except TimeoutError:
        return asyncio.current_task().cancelling()

@app.task(name="parent")
def parent(count, then="wait"):
    """Spawn, and then wait, or end in another way."""
    me = current()
    children = [me.spawn(echo, "x" * 1000, number) for number in range(count)]
    if then == "die":
        os._exit(7)
    if then == "raise":
        raise KeyError("later")
    if then == "fork" and os.fork() == 0:
        me.spawn(echo, "of the fork")
        os._exit(0)
    return me.wait(children) if then == "wait" else then

@app.task(name="aparent")
async def aparent(count, then="wait"):
    """Wait within a task group, which raises a group of what was raised in it."""
    async def wait():
        await asyncio.sleep(0)
        return parent(count, then)
    async with asyncio.TaskGroup() as group:
        waits = group.create_task(wait())
    return waits.result()

@app.task(name="tparent")
async def tparent(count, then="wait"):
    found = []
    async def wait():
        await trio.sleep(0)
        found.extend(parent(count, then))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
    return found

@app.task(name="techo")
async def techo(value):
    await trio.sleep(0)
    return [value, current().fencing_token]

@app.task(name="tforever")
async def tforever():
    await trio.sleep_forever()
'''

PATIENCE_S = 30.0


def call(token: int, name: str, *args: object, attempt: int = 1) -> Grant:
    spec = TaskSpec(task_id(token), name, pack_arguments(args, {}), "some-queue", traceparent="00-trace-01")
    return Grant(token, attempt, spec)


def with_hold(grant: Grant, *holds: Hold) -> Grant:
    """The same lease, which holds this."""
    return msgspec.structs.replace(grant, granted=Granted(list(holds)))


def limited(
    grant: Grant, *, timeout_ms: int = 0, soft_ms: int = 0, heartbeat_ms: int = 0, exclusive: bool = False
) -> Grant:
    """The same, with limits."""
    spec = changed(
        grant.spec, timeout_ms=timeout_ms, soft_timeout_ms=soft_ms, heartbeat_ms=heartbeat_ms, exclusive=exclusive
    )
    return msgspec.structs.replace(grant, spec=spec)


class Bench:
    """One worker, and the agent's side of its pipes."""

    def __init__(self, hand: Hand, process: Worker) -> None:
        self.hand = hand
        self.process = process
        self.batches = 0
        self._said: deque[wire.FromWorker] = deque()

    def tell(self, message: wire.ToWorker) -> None:
        self.process.send(wire.encode(message))

    def give(
        self,
        *grants: Grant,
        clock_ahead_ms: int = 0,
        result_bytes_max: int = 1 << 20,
        cpus: Sequence[int] = (),
        together: bool = False,
    ) -> int:
        self.batches += 1
        self.tell(wire.Batch(self.batches, clock_ahead_ms, result_bytes_max, list(grants), [], list(cpus), together))
        return self.batches

    async def next(self) -> wire.FromWorker:
        with trio.fail_after(PATIENCE_S):
            while not self._said:
                said = await self.hand.messages()
                assert said is not None, "the worker closed its end"
                self._said.extend(said)
        return self._said.popleft()

    async def result(self) -> object:
        """The result of the next attempt that ends."""
        end = await self.next()
        assert isinstance(end, wire.Returned), end
        return unpack(end.result)

    async def failure(self) -> Failure:
        """How the next attempt that ends failed."""
        end = await self.next()
        assert isinstance(end, wire.Raised), end
        return end.failure

    async def exit(self) -> Exit:
        with trio.fail_after(PATIENCE_S):
            return await self.process.wait()

    def rest(self) -> list[wire.FromWorker]:
        """What it said and nobody has looked at."""
        self._said.extend(self.hand.messages_nowait())
        rest = list(self._said)
        self._said.clear()
        return rest


async def wait_until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    with trio.fail_after(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await trio.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Whether the process exists and is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
