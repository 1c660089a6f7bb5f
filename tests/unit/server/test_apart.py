"""This program as a process that does one thing: it hears, says, fails and is cut short as one."""

import json
import os

import psutil
import pytest
import trio
import trio.lowlevel

from taskd.http.converting import PACKABLE, convert, pack_apart, value_apart
from taskd.http.errors import FieldRefused
from taskd.http.submitting import TaskBody
from taskd.program import CONVERTER
from taskd.server.apart import Processes, run_program
from taskd_protocol.payload import pack, unpack_arguments


async def test_what_it_reads_and_puts_out_is_larger_than_a_pipe() -> None:
    """In both directions at once."""
    body = json.dumps({"name": "m.f", "args": [list(range(400_000))], "kwargs": {"x": "y" * 100_000}}).encode()
    task, [payload] = await pack_apart(body, TaskBody, Processes(1))
    assert (task.name, task.args, task.kwargs) == ("m.f", [], {})
    assert unpack_arguments(payload) == ([list(range(400_000))], {"x": "y" * 100_000})
    value = await value_apart("result", pack([2**63, b"x" * 300_000]), None, Processes(1))
    assert value.text is not None
    assert value.text.startswith("[9223372036854775808,")
    assert len(value.text) > 400_000


async def test_what_it_refuses_is_refused_here() -> None:
    with pytest.raises(FieldRefused) as refused:
        await pack_apart(b'{"name": 7}', TaskBody, Processes(1))
    assert refused.value.path == "$.name"


async def test_one_that_fails_raises() -> None:
    """Also before it has heard all that is said to it."""
    with pytest.raises(ChildProcessError, match="ended with"):
        await Processes(1)(["no-such-command"], b"x" * 1_000_000)


async def test_errors_come_along_if_they_are_wanted() -> None:
    code, output = await run_program(["no-such-command"], errors_too=True)
    assert code == 2
    assert b"no-such-command" in output


async def test_cut_short_nothing_of_it_is_left() -> None:
    before = {process.pid for process in psutil.Process().children()}
    with trio.move_on_after(0.05) as scope:
        await Processes(1)([CONVERTER, PACKABLE[TaskBody]], b'{"name":"m.f","args":[[' + b"1," * 4_000_000 + b"1]]}")
    assert scope.cancelled_caught
    assert {process.pid for process in psutil.Process().children()} <= before


async def test_no_more_run_at_a_time_than_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others wait, and run then."""
    running, most = 0, 0

    async def run(words: list[str], said: bytes) -> tuple[int, bytes]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.lowlevel.checkpoint()
        running -= 1
        return 0, convert(words[1:], said)

    monkeypatch.setattr("taskd.server.apart.run_program", run)
    processes, told = Processes(2), []

    async def ask() -> None:
        told.append(await value_apart("result", pack(os.getpid()), None, processes))

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(ask)
    assert most == 2
    assert [value.text for value in told] == [str(os.getpid())] * 6
