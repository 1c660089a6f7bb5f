"""Builds `dist/taskd`: freezes the installed package with PyInstaller, then packs it behind `launch.sh`.

The same sources and locked requirements give the same name in the cache: the archive carries no
times and no owners.
"""

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BINARY = ROOT / "scripts" / "binary"
WORK = ROOT / "build" / "binary"
TARGET = ROOT / "dist" / "taskd"

SIZE_MAX_BYTES = 40_000_000  # what a person waits for on a slow line, and what the README says

# Imported by name at run time, so that the analysis of imports does not see them.
COLLECTED = ["taskd", "taskd_protocol", "anycorn"]
# Found by the analysis behind optional imports, used by nothing that taskd does; a fifth of the size.
EXCLUDED = [
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
    options += [f"--exclude-module={name}" for name in EXCLUDED]
    subprocess.run([sys.executable, "-m", "PyInstaller", *options, BINARY / "entry.py"], check=True)
    return WORK / "dist" / "taskd"


def archive(folder: Path) -> bytes:
    """Pack the folder's files, in order of their names, without what differs between two builds."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(folder.rglob("*")):
            member = tar.gettarinfo(path, arcname=str(path.relative_to(folder)))
            member.mtime = member.uid = member.gid = 0
            member.uname = member.gname = ""
            with path.open("rb") if member.isreg() else io.BytesIO() as content:
                tar.addfile(member, content)
    return packed.getvalue()


def main() -> None:
    """Write the binary whole or not at all; refuse one that has grown too large."""
    program = archive(freeze())
    script = (BINARY / "launch.sh").read_text()
    script = script.replace("@DIGEST@", hashlib.sha256(program).hexdigest()[:16])
    script = script.replace("@LINES@", str(script.count("\n") + 1))
    size = len(script) + len(program)
    if size > SIZE_MAX_BYTES:
        sys.exit(f"dist/taskd would be {size:,} bytes, more than {SIZE_MAX_BYTES:,}: exclude what crept in")
    TARGET.parent.mkdir(exist_ok=True)
    new = TARGET.with_suffix(".new")
    new.write_bytes(script.encode() + program)
    new.chmod(0o755)
    new.replace(TARGET)
    print(f"dist/taskd: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
