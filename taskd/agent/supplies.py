"""What an agent has for tasks to ask for: found on its machine, said by its user, or both."""

import math
import os
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import psutil

from taskd.agent.cgroup import Cgroups
from taskd.agent.gpus import Gpu, find_gpus
from taskd.client.amounts import read_count
from taskd_protocol.errors import BadRequest, ConfigInvalid
from taskd_protocol.resources import CPU, GPU, MEMORY, ONE, Supply

Pool: TypeAlias = float | str | list[str]
"""As it is said: ``4``; ``[a,b]`` or a list, of what can be told apart; ``[a:kind,b:kind]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is.

    Attributes:
        cpus: That may be used, in thousandths.
        memory_bytes: That may be used.
        gpus: That may be used.
        cpu_numbers: Of the CPUs that may be used.
        host: The machine's name.
        arch: What its processors understand.
        python: Version of the interpreter, without what is a repair only.
    """

    cpus: int
    memory_bytes: int
    gpus: Sequence[Gpu] = ()
    cpu_numbers: Sequence[int] = ()
    host: str = ""
    arch: str = ""
    python: str = ""


def find_machine() -> Machine:
    """Look at the machine that this process runs on."""
    limit = Cgroups().memory()
    memory_bytes = psutil.virtual_memory().total
    return Machine(
        cpus=usable_cpus(),
        memory_bytes=memory_bytes if limit is None else min(limit, memory_bytes),
        gpus=find_gpus(os.environ),
        cpu_numbers=sorted(os.sched_getaffinity(0)),
        host=socket.gethostname(),
        arch=platform.machine(),
        python=".".join(platform.python_version_tuple()[:2]),
    )


def usable_cpus() -> int:
    """Return how many CPUs this process may use, in thousandths: those it may run on, and its time on them."""
    cpus = len(os.sched_getaffinity(0))
    quota = Cgroups().cpus()
    return ONE * cpus if quota is None else max(1, min(ONE * cpus, math.floor(quota * ONE)))


def supplies(machine: Machine, pools: Mapping[str, Pool], *, cpus: float = 0, memory_bytes: int = 0) -> list[Supply]:
    """Return what is to be offered.

    Args:
        machine: What there is.
        pools: What its user says that it has, by name; of GPUs in place of what was found.
        cpus: In place of what was found; 0: that.
        memory_bytes: Likewise.

    Raises:
        ConfigInvalid: A pool is none; it is named.
    """
    made = {
        CPU: Supply(CPU, round(cpus * ONE) or machine.cpus),
        MEMORY: Supply(MEMORY, memory_bytes or machine.memory_bytes),
    }
    if machine.gpus:
        items, kinds = [str(gpu.number) for gpu in machine.gpus], [gpu.kind for gpu in machine.gpus]
        made[GPU] = Supply(GPU, ONE * len(items), items, kinds)
    made.update((name, _supply(name, pool)) for name, pool in pools.items())
    return list(made.values())


def _supply(name: str, pool: Pool) -> Supply:
    if name in {CPU, MEMORY}:
        raise ConfigInvalid(f"--resource {name}=…: say it with {'--cpus' if name == CPU else '--memory'}")
    if isinstance(pool, str) and pool.startswith("[") and pool.endswith("]"):
        pool = [item.strip() for item in pool[1:-1].split(",")]
    if isinstance(pool, list):
        return _items(name, pool)
    try:
        return Supply(name, read_count(pool, name))
    except BadRequest as error:
        raise ConfigInvalid(f"--resource {error.message}") from None


def _items(name: str, said: Sequence[str]) -> Supply:
    items, colons, kinds = zip(*(item.partition(":") for item in said), strict=True) if said else ((), (), ())
    if not said or not all(items) or len(set(items)) < len(items):
        raise ConfigInvalid(f"--resource {name}: items are named, each once: {name}=[a,b], or {name}=[a:kind,b:kind]")
    if any(colons) and not all(kinds):
        raise ConfigInvalid(f"--resource {name}: all items have a kind, or none: {name}=[a:kind,b:kind]")
    return Supply(name, ONE * len(items), list(items), list(kinds) if any(colons) else [])
