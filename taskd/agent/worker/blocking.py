"""Blocking functions: one after another, in the worker's main thread.

Every result is written as soon as it is there: a task that runs for an hour
holds back nothing that ended before it, and a crash loses no result. The write
costs a microsecond, since the agent reads many at a time.
"""

import os
from contextvars import copy_context
from typing import NamedTuple, NoReturn, assert_never

from msgspec import structs

from taskd.agent import wire
from taskd.agent.clock import Clock
from taskd.agent.worker import calls, together
from taskd.agent.worker.holding import having
from taskd.agent.worker.joining import join_trace
from taskd.agent.worker.link import Link
from taskd.agent.worker.printing import BRIEF_NS, Printing
from taskd.agent.worker.speech import Speech
from taskd.client.context import Port, TaskContext, running
from taskd_protocol.resources import Granted
from taskd_protocol.task import Failure, Grant


class Voice(NamedTuple):
    """What an attempt says, and prints."""

    speech: Speech
    printing: Printing


def serve(link: Link, functions: calls.Functions, clock: Clock, voice: Voice) -> None:
    """Run batches until the agent closes the link."""
    voice.printing.begin()
    while True:
        try:
            messages = link.receive()
        except EOFError:
            voice.printing.end()
            return
        for message in messages:
            match message:
                case wire.Batch() if message.together:
                    _run_together(link, functions, clock, message, voice)
                case wire.Batch():
                    _run(link, functions, clock, message, voice)
                case wire.Setup() | wire.Stop():
                    pass  # said to event loops; a blocking call is ended by ending its process
                case _:
                    assert_never(message)


def _run(link: Link, functions: calls.Functions, clock: Clock, batch: wire.Batch, voice: Voice) -> None:
    speech, printing = voice
    speech.ahead_ms, speakers, last = batch.clock_ahead_ms, speech.speakers, batch.grants[-1].token
    page, number, timed = link.page, batch.number, batch.timed
    mono_ns, write, encode, result_bytes_max = clock.mono_ns, link.write, wire.encode, batch.result_bytes_max
    start_ns = previous_ns = mono_ns()
    start_at_ms = clock.wall_ms() + batch.clock_ahead_ms
    for grant in batch.grants:
        token = grant.token
        page[wire.PAGE_RUNNING] = token
        if page[wire.PAGE_RECALLED] >= number:  # looked at after the store above: see the link
            page[wire.PAGE_RUNNING] = 0
            link.tell(wire.Recalled(number))
            return
        started_at_ms = start_at_ms + (previous_ns - start_ns) // 1_000_000
        if timed and token in timed:
            link.tell(wire.Started(token))
        peak_bytes = 0
        if grant.granted is None:
            end = copy_context().run(attempt, functions, grant, result_bytes_max)  # what a task sets is gone with it
        else:
            with having(grant.granted, batch.cpus) as peak:
                end = copy_context().run(attempt, functions, grant, result_bytes_max)
                peak_bytes = peak.bytes()
        if link.forked:
            _end_of_a_fork()
        if speakers:
            speech.ended(token)
        if printing.touched or token == last or mono_ns() - previous_ns > BRIEF_NS:
            printing.mark(token)
        now_ns = mono_ns()
        run_us = (now_ns - previous_ns) / 1_000
        previous_ns = now_ns
        if isinstance(end, bytes):
            write(encode(wire.Returned(token, end, started_at_ms, run_us, peak_bytes)))
        else:
            write(encode(structs.replace(calls.bad_end(token, end, started_at_ms, run_us), peak_bytes=peak_bytes)))
    page[wire.PAGE_RUNNING] = 0


def _run_together(link: Link, functions: calls.Functions, clock: Clock, batch: wire.Batch, voice: Voice) -> None:
    """Run a batch in one call; the first token shows for all, since they begin and end together."""
    page, grants = link.page, batch.grants
    page[wire.PAGE_RUNNING] = grants[0].token
    if page[wire.PAGE_RECALLED] >= batch.number:
        page[wire.PAGE_RUNNING] = 0
        link.tell(wire.Recalled(batch.number))
        return
    voice.speech.ahead_ms = batch.clock_ahead_ms
    started_at_ms = clock.wall_ms() + batch.clock_ahead_ms
    for token in batch.timed:
        link.tell(wire.Started(token))
    link.places = len(grants)
    start_ns = clock.mono_ns()
    with having(grants[0].granted or Granted([]), batch.cpus) as peak:
        ends = copy_context().run(together.run, functions, grants, batch.result_bytes_max)
        peak_bytes = peak.bytes()
    link.places = 1
    if link.forked:
        _end_of_a_fork()
    for grant in grants if voice.speech.speakers else ():
        voice.speech.ended(grant.token)
    voice.printing.mark(grants[0].token)
    each_us = (clock.mono_ns() - start_ns) / 1_000 / len(grants)
    told = [together.told(token, end, started_at_ms, each_us, peak_bytes) for token, end in ends.items()]
    link.write(b"".join(map(wire.encode, told)))
    page[wire.PAGE_RUNNING] = 0


def attempt(
    functions: calls.Functions, grant: Grant, result_bytes_max: int, port: Port | None = None
) -> bytes | Failure | calls.Thrown:
    """Run one attempt in the context of now, which is to be the attempt's own; return its packed result."""
    spec = grant.spec
    function = functions.get(spec.name)
    if function is None:
        return calls.unknown(spec.name)
    context = TaskContext(grant, port, None if grant.spawned is None else wire.found_of(grant))
    running.set(context)
    join_trace(context)
    arguments = calls.read_arguments(spec)
    if isinstance(arguments, Failure):
        return arguments
    args, kwargs = arguments
    end: bytes | Failure | calls.Thrown
    try:
        result = function(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - sys.exit() in a task ends the task, not its worker
        end = calls.raised(error, spec.retry)
    else:
        end = calls.pack_result(result, result_bytes_max)
    return end if context.family is None else calls.with_family(context.family, end)


def _end_of_a_fork() -> NoReturn:
    """End a child that the task forked and that came back out of its function: the parent reports."""
    os._exit(0)
