"""Builds `dist/taskd`: freezes the installed package with PyInstaller, then packs it behind `launch.sh`.

The archives carry no times and no owners: their hash, which names the program in the cache, is that of
what the program is.
"""

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / "scripts" / "binary"
WORK = ROOT / "build" / "binary"
TARGET = ROOT / "dist" / "taskd"

SIZE_MAX_BYTES = 40_000_000  # what a person waits for on a slow line, and what the README says

# Imported by name at run time, so that the analysis of imports does not see them.
COLLECTED = ["taskd", "taskd_dashboard", "taskd_protocol", "anycorn", "tzdata"]
WITH_DATA = ["taskd_dashboard"]  # the files of the page
OPTIONAL = ["pynvml"]  # what finds GPUs; the library that it opens comes with their driver
# Found by the analysis behind optional imports, used by nothing that taskd does; a quarter of the size.
EXCLUDED = [
    *("rich_click", "markdown_it", "mdurl"),  # the command line that anycorn has of its own
    *("_codecs_cn", "_codecs_hk", "_codecs_iso2022", "_codecs_jp", "_codecs_kr", "_codecs_tw"),
    *("hypothesis", "pytest", "_pytest", "pluggy", "IPython"),
    *("setuptools", "distutils", "lib2to3", "cffi", "pycparser"),
    *("pygments", "pydoc", "readline", "tkinter", "xmlrpc"),
]


def freeze() -> Path:
    """Freeze into a folder, with the modules as plain files.

    Unpacking happens once, so there is no gain in an archive that every start decompresses again:
    0.35 s of 0.9 s.
    """
    options = ["--onedir", "--strip", "--debug=noarchive", "--name=taskd"]
    options += ["--noconfirm", "--log-level=WARN"]
    options += [f"--{place}path={WORK / place}" for place in ("work", "dist", "spec")]
    options += [f"--collect-submodules={name}" for name in COLLECTED]
    options += [f"--collect-data={name}" for name in WITH_DATA]
    options += [f"--hidden-import={name}" for name in OPTIONAL]
    options += [f"--exclude-module={name}" for name in EXCLUDED]
    subprocess.run([sys.executable, "-m", "PyInstaller", *options, BINARY / "entry.py"], check=True)
    return WORK / "dist" / "taskd"


def halves(folder: Path) -> list[list[Path]]:
    """Share out the folder's files into two lists that are about the same size.

    Each has all directories: of two `tar` that find one missing at the same time, one fails.
    """
    paths = [*folder.rglob("*")]
    folders = [path for path in paths if path.is_dir() and not path.is_symlink()]
    files = sorted(set(paths).difference(folders), key=lambda path: (-path.lstat().st_size, path))
    return [sorted([*folders, *files[start::2]]) for start in (0, 1)]


def archive(folder: Path, files: Sequence[Path]) -> bytes:
    """Pack files of the folder, without what differs between two builds."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in files:
            member = tar.gettarinfo(path, arcname=str(path.relative_to(folder)))
            member.mtime = member.uid = member.gid = 0
            member.uname = member.gname = ""
            with path.open("rb") if member.isreg() else io.BytesIO() as content:
                tar.addfile(member, content)
    return packed.getvalue()


def launcher(first: bytes, second: bytes) -> bytes:
    """Return the script that begins the binary, telling where in it the two archives are."""
    script = (BINARY / "launch.sh").read_text()
    script = script.replace("@DIGEST@", hashlib.sha256(first + second).hexdigest()[:16])
    script = script.replace("@FIRST_BYTES@", str(len(first)))
    # As many digits as the names have letters: where the archives begin depends on the script's own length.
    begin = len(script.encode()) + 1
    script = script.replace("@FIRST@", f"{begin:07}")
    return script.replace("@SECOND@", f"{begin + len(first):08}").encode()


def main() -> None:
    """Write the binary whole or not at all; refuse one that has grown too large."""
    folder = freeze()
    first, second = (archive(folder, files) for files in halves(folder))
    binary = launcher(first, second) + first + second
    if len(binary) > SIZE_MAX_BYTES:
        sys.exit(f"dist/taskd would be {len(binary):,} bytes, more than {SIZE_MAX_BYTES:,}: exclude what crept in")
    TARGET.parent.mkdir(exist_ok=True)
    new = TARGET.with_suffix(".new")
    new.write_bytes(binary)
    new.chmod(0o755)
    new.replace(TARGET)
    print(f"dist/taskd: {len(binary) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
