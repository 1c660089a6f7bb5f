"""Machines that share a wire and nothing else: network namespaces, made here and removed again.

That takes root and iproute2.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from e2e.house import PROGRAM, House, house


class Machine:
    """A network namespace, and the far end of a wire in it."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.wire = "wire0"

    def ip(self, *words: str) -> None:
        """Run `ip` in it."""
        ip("-n", self.name, *words)

    def deafen(self, other: "Machine", *, deaf: bool = True) -> None:
        """Send nothing to the other any more, or send again."""
        self.ip("route", "add" if deaf else "del", "blackhole", f"{other.address}/32")

    def up(self, *, wire: bool = True) -> None:
        """Plug in its wire, or pull it out."""
        self.ip("link", "set", self.wire, "up" if wire else "down")

    @contextlib.contextmanager
    def house(self, home: Path, module: str) -> Iterator[House]:
        """Give a user of this machine, who has written a module called ``shop``."""
        with house(home, ["ip", "netns", "exec", self.name, PROGRAM]) as made:
            (made.work / "shop.py").write_text(module)
            yield made


def ip(*words: str) -> None:
    """Run `ip`, which must succeed."""
    ended = subprocess.run(["ip", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"ip {' '.join(words)}: {ended.stderr}"


@contextlib.contextmanager
def two_machines(here_address: str, there_address: str) -> Iterator[tuple[Machine, Machine]]:
    """Give two machines and the wire between them."""
    here, there = Machine(f"taskd-a-{os.getpid()}", here_address), Machine(f"taskd-b-{os.getpid()}", there_address)
    with contextlib.ExitStack() as stack:
        for machine in (here, there):
            ip("netns", "add", machine.name)
            stack.callback(ip, "netns", "del", machine.name)
        here.ip("link", "add", here.wire, "type", "veth", "peer", "name", there.wire, "netns", there.name)
        for machine in (here, there):
            machine.ip("link", "set", "lo", "up")
            machine.ip("address", "add", f"{machine.address}/24", "dev", machine.wire)
            machine.up()
        yield here, there
