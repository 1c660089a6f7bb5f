"""Names of tasks: ``module.function``, as an agent that imports the module would see it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import ParamSpec

from taskd_protocol.errors import BadRequest

P = ParamSpec("P")

_MAIN = ("__main__", "__mp_main__")
"""The module of a program that was started; the second is what multiprocessing calls it in a child."""


def task_name(function: Callable[P, object]) -> str:
    """Return the name of a function's task.

    Raises:
        BadRequest: It is defined in ``__main__``, and no module that an agent could import stands for that.
    """
    module, name = function.__module__, getattr(function, "__qualname__", type(function).__qualname__)
    if module in _MAIN:
        module = _importable_main(sys.modules.get(module), f"task {name!r}", "give the task a name=")
    return f"{module}.{name}"


def exception_name(kind: type[BaseException]) -> str:
    """Return the name of an exception's class, as an agent that imports its module would see it.

    Raises:
        BadRequest: It is defined in ``__main__``, and no module that an agent could import stands for that.
    """
    module, name = kind.__module__, kind.__qualname__
    if module in _MAIN:
        module = _importable_main(sys.modules.get(module), f"exception {name!r}", "catch it in the task")
    return f"{module}.{name}"


def _importable_main(main: ModuleType | None, what: str, else_do: str) -> str:
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:  # python -m package.module
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if not file or not Path(file).is_file():
        raise BadRequest(
            f"{what} is defined in an interactive __main__, which no agent can import:"
            f" move it to a module, or {else_do}"
        )
    module = module_of(Path(file))
    if module is None:
        raise BadRequest(
            f"{what} is defined in {file} run as __main__, which cannot be imported by that name:"
            f" run it from its project's folder, rename it to a Python identifier, or {else_do}"
        )
    return module


def module_of(file: Path) -> str | None:
    """Return the name by which a file is importable: from the working directory, as an agent does, or from sys.path."""
    file = Path(os.path.abspath(file))  # noqa: PTH100 - resolve() would follow a link out of the project
    script_folder = file.parent
    roots = [Path.cwd(), *(Path(entry) for entry in sys.path if entry), script_folder]
    # the script's own folder is on sys.path, but a folder above it may be what its imports are relative to
    for root in sorted(roots, key=lambda root: root == script_folder and root != Path.cwd()):
        if file.is_relative_to(root):
            parts = file.relative_to(root).with_suffix("").parts
            if parts and file.suffix == ".py" and all(part.isidentifier() for part in parts):
                return ".".join(parts)
    return None
