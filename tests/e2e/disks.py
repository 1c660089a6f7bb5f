"""File systems of a test's own. That takes root, and for one that fails loop devices and mkfs.ext4, too."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

IMAGE_MIB = 256
"""More than there is room for below it."""


class CannotMount(Exception):
    """The machine does not let us have a file system: nothing is said of taskd."""


def eat(folder: Path) -> Path:
    """Take all the room that is left there; return the file that has it."""
    file = folder / "eaten"
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as opened:
        while opened.write(bytes(65_536)):
            pass
    return file


@contextlib.contextmanager
def small_disk(point: Path, mib: int) -> Iterator[Path]:
    """Mount a file system there, of so many MiB."""
    point.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={mib}m", "taskd-test", str(point))
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


class FailingDisk:
    """An ext4 on a device whose blocks run out below it: the kernel cannot write, and makes it read-only for good."""

    def __init__(self, point: Path, below: Path) -> None:
        self._point = point
        self._below = below
        self._image = below / "image"

    def make(self) -> None:
        """Make and mount it."""
        self._point.mkdir()
        with self._image.open("wb") as image:
            image.truncate(IMAGE_MIB << 20)
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,nodiscard", str(self._image))
        self.mount()

    def mount(self) -> None:
        """Put it where it belongs."""
        _mount("-o", "loop,errors=remount-ro", str(self._image), str(self._point))

    def fail(self) -> None:
        """Leave it no more room below than it has taken."""
        eat(self._below)

    @property
    def is_read_only(self) -> bool:
        """The kernel has given it up."""
        try:
            (self._point / "probe").touch()
        except OSError:
            return True
        return False

    def unmount(self) -> None:
        """Take it away; nobody may use it any more."""
        _run("umount", str(self._point))

    def mend(self) -> None:
        """Have room again, and mount it again, as an operator would."""
        self.unmount()
        (self._below / "eaten").unlink()
        self.mount()


@contextlib.contextmanager
def failing_disk(point: Path, mib: int) -> Iterator[FailingDisk]:
    """Mount a disk there, with so many MiB below it."""
    with small_disk(point.with_name(f"{point.name}-below"), mib) as below:
        disk = FailingDisk(point, below)
        disk.make()
        try:
            yield disk
        finally:
            subprocess.run(["umount", "--lazy", str(point)], check=True)


def _mount(*words: str) -> None:
    _run("mount", *words)


def _run(*words: str) -> None:
    try:
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise CannotMount(f"this case needs {words[0]}, root and loop devices: {missing}") from None
    if ended.returncode != 0:
        raise CannotMount(f"this case needs root and loop devices; {' '.join(words)}: {ended.stderr.strip()}")
