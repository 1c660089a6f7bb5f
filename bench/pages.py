"""docs/benchmarks.md and its pictures, made of the JSON files in docs/benchmarks/ alone, and the same anywhere else.

    python bench/pages.py [peers|curves FILE.json] [--into FOLDER]

Two parts, each of a run of its own: taskd beside others, and taskd at scale. With a file its part is made of that from
now on; without one both are made anew of the files that are there.
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

import curve_page
import msgspec
from peers import page as peers_page
from peers.figures import Document as Peers

DOCS = Path(__file__).parents[1] / "docs"
FILES = "benchmarks"
"""The folder beside the page, of pictures and JSON."""
PARTS = {"peers": (Peers, peers_page), "curves": (curve_page.Document, curve_page)}
"""In their order on the page."""

INTRODUCTION = """\
# How fast taskd is

Programs make all of this page from what they measured (`docs/benchmarks/*.json`); `bench/README.md` says how. Nobody
edits it: `make bench-peers ARGS=--docs` and `make bench-curves ARGS=--docs` write its two parts.
"""


def take(folder: Path, part: str, path: Path) -> Path:
    """Have a part be made of this file from now on; write the page."""
    (folder / FILES).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / FILES / f"{part}.json")
    return write(folder)


def write(folder: Path) -> Path:
    """Write the page and its pictures; return the page."""
    for picture in (folder / FILES).glob("*.svg"):
        picture.unlink()
    lines = INTRODUCTION.splitlines()
    for part, (kind, module) in PARTS.items():
        file = folder / FILES / f"{part}.json"
        if file.exists():
            document = msgspec.json.decode(file.read_bytes(), type=kind)
            lines += ["", *_deeper(module.text(document))]
            for name, svg in module.pictures(document):
                (folder / FILES / name).write_text(svg)
    page = folder / f"{FILES}.md"
    page.write_text("\n".join(lines) + "\n")
    return page


def _deeper(lines: Iterator[str]) -> Iterator[str]:
    """Put the headings of a part below the page's own."""
    for line in lines:
        yield f"#{line}" if line.startswith("#") else line


def main() -> None:
    """Make the page."""
    parser = argparse.ArgumentParser(description="Make docs/benchmarks.md of what was measured.")
    parser.add_argument("part", nargs="?", choices=PARTS)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--into", type=Path, default=DOCS)
    options = parser.parse_args()
    print(take(options.into, options.part, options.file) if options.file else write(options.into))


if __name__ == "__main__":
    main()
