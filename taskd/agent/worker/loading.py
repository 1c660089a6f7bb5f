"""Loading: the user's modules imported, and the tasks that are in them."""

import importlib
import platform
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from taskd.agent import wire
from taskd.agent.worker.calls import line
from taskd.client.app import App
from taskd.client.middleware import TaskFunction
from taskd_protocol.limiting import Limit
from taskd_protocol.schedule import Schedule


class Loaded(NamedTuple):
    """What the modules hold."""

    tasks: list[wire.Known]
    functions: dict[str, TaskFunction]
    error: str
    """Why a module could not be imported, naming it; empty when all were."""
    schedules: dict[str, list[Schedule]]
    """What the code of each module defines: of those named, and of every one in which a task, or a function that writes
    a workflow, was found."""
    limits: dict[str, list[Limit]]
    """What it says of limits, likewise."""
    versions: list[str]
    """Of the code, as its Apps say, each once."""

    def ready(self) -> wire.Ready:
        """Return what a worker says of it."""
        python = ".".join(platform.python_version_tuple()[:2])
        return wire.Ready(wire.VERSION, self.tasks, self.error, self.schedules, self.versions, python, self.limits)


def load(modules: Sequence[str]) -> Loaded:
    """Import the modules and find every task of every App that is an attribute of one of them."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    tasks: list[wire.Known] = []
    functions: dict[str, TaskFunction] = {}
    bare: dict[str, TaskFunction] = {}
    schedules: dict[str, list[Schedule]] = {}
    limits: dict[str, list[Limit]] = {}
    versions: list[str] = []
    seen: set[int] = set()
    for name in modules:
        try:
            module = importlib.import_module(name)
            schedules.setdefault(module.__name__, [])
            limits.setdefault(module.__name__, [])
        except BaseException as error:  # noqa: BLE001 - a module may even call sys.exit()
            return Loaded([], {}, _why(name, error), {}, {}, [])
        for value in list(vars(module).values()):
            if not isinstance(value, App) or id(value) in seen:
                continue
            seen.add(id(value))
            versions.append(value.version)
            for task in value.tasks.values():
                if bare.setdefault(task.name, task.function) is not task.function:
                    twice = f"module {name!r} has a second task named {task.name!r}: rename one of them"
                    return Loaded([], {}, twice, {}, {}, [])
                size, wait_ms = task.batching or (0, 0)
                tasks.append(wire.Known(task.name, task.is_async, size, wait_ms))
                functions[task.name] = task.for_worker()
                source = task.function.__module__
                schedules.setdefault(source, []).extend(value.schedules.get(task.name, ()))
                said = limits.setdefault(source, [])
                said += [limit for limit in value.limits.get(task.name, ()) if limit not in said]
            try:
                for source, write in value.written:
                    schedules.setdefault(source, []).extend(write())
            except BaseException as error:  # noqa: BLE001 - the function that writes a workflow is the user's
                return Loaded([], {}, _why(name, error, "says of schedules what cannot be"), {}, {}, [])
    return Loaded(tasks, functions, "", schedules, limits, list(dict.fromkeys(filter(None, versions))))


def _why(module: str, error: BaseException, what: str = "failed to import") -> str:
    """Return one line that names the module, what was raised, and where."""
    meant = module.partition(":")[0].removeprefix("./").removesuffix(".py").strip("/").replace("/", ".")
    if meant != module:
        return line(f"{module!r} is no name of a module: write it as an import does, such as {meant or 'tasks'}")
    text = line(f"module {module!r} {what}: {type(error).__name__}: {error}")
    frames = traceback.extract_tb(error.__traceback__)
    # A module that is not there at all fails inside the import system: no place worth naming.
    users = [frame for frame in frames if not frame.filename.startswith(("<frozen", __file__, importlib.__file__))]
    return f"{text} ({users[-1].filename}:{users[-1].lineno})" if users else text
