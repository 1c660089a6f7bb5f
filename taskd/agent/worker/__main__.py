"""Where a worker starts: ``python -m taskd.agent.worker MODULE…``, by an agent's runner."""

import faulthandler
import gc
import os
import sys
from collections.abc import Sequence

from taskd.agent import wire
from taskd.agent.clock import SystemClock
from taskd.agent.worker import blocking
from taskd.agent.worker.link import Link
from taskd.agent.worker.loading import load
from taskd.agent.worker.port import Port
from taskd.agent.worker.printing import Printing
from taskd.agent.worker.recording import Recorder
from taskd.client.context import TaskContext


def main(modules: Sequence[str]) -> None:
    """Import the modules, tell what is in them, and run what the agent sends."""
    link = Link(os.environ.pop(wire.FDS_VARIABLE))
    printing = Printing(link)
    loaded = load(modules)
    link.tell(loaded.ready())
    gc.collect()
    gc.freeze()  # what was imported stays: no collection need look at it again
    try:
        setup = link.receive_setup()
    except EOFError:
        return
    clock = SystemClock()
    one_at_a_time = setup.kind not in {"asyncio", "trio"}
    port = Port(link, clock, may_block=one_at_a_time, bytes_per_s=setup.bytes_per_s)
    TaskContext.port = port
    Recorder(link, port.speech, (lambda: link.page[wire.PAGE_RUNNING]) if one_at_a_time else lambda: 0).install()
    faulthandler.register(wire.STACKS_SIGNAL, file=link.stacks, all_threads=True)
    # An event loop is imported by the worker that runs it, after the user's modules.
    if setup.kind == "asyncio":
        from taskd.agent.worker import on_asyncio  # noqa: PLC0415

        on_asyncio.serve(link, loaded.functions, clock, setup.concurrency, port)
    elif setup.kind == "trio":
        from taskd.agent.worker import on_trio  # noqa: PLC0415

        on_trio.serve(link, loaded.functions, clock, setup.concurrency, port)
    else:
        blocking.serve(link, loaded.functions, clock, blocking.Voice(port.speech, printing))


if __name__ == "__main__":
    main(sys.argv[1:])
