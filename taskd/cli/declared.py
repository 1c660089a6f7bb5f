"""What the code of modules declares, by an interpreter that can import them: this program may have none."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from taskd_protocol.errors import ConfigInvalid

if TYPE_CHECKING:
    from taskd.agent.wire import Ready


def imported(modules: Sequence[str], python: str) -> "Ready":
    """Have an interpreter import the modules; return what is in them.

    Args:
        modules: Their names.
        python: The interpreter; empty: that of agents.

    Raises:
        ConfigInvalid: One cannot be imported, or there is no such interpreter.
    """
    import subprocess

    import msgspec

    from taskd.agent import wire
    from taskd.agent.config import find_python

    argv = [find_python(python), "-m", "taskd.agent.worker.declared", *modules]
    ran = subprocess.run(argv, stdout=subprocess.PIPE, check=False)  # noqa: S603 - the interpreter that was named
    try:
        ready = msgspec.msgpack.decode(ran.stdout, type=wire.Ready)
    except msgspec.MsgspecError:
        raise ConfigInvalid(f"{argv[0]} told nothing of {', '.join(modules)}: is taskd installed for it?") from None
    if ready.error:
        raise ConfigInvalid(ready.error)
    if not ready.tasks:
        raise ConfigInvalid(f"no tasks in {', '.join(modules)}: name the modules that hold a taskd.App")
    return ready
