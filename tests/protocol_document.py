"""The protocol document, read as data: the tables of ``protocol/SPEC.md`` by heading."""

import pathlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENT = ROOT / "protocol" / "SPEC.md"
VECTORS = ROOT / "protocol" / "vectors"

_HEADING = re.compile(r"#+ (.*)")
_MESSAGE = re.compile(r"(\d+) ([A-Z_]+) \((→ server|→ peer|both ways)\)")


@dataclass(frozen=True, slots=True)
class Section:
    """What stands under one heading, up to the next."""

    title: str
    text: str
    rows: list[list[str]]
    """Cells of all its tables, without their heads."""


@dataclass(frozen=True, slots=True)
class DescribedMessage:
    """A message as the document tells it."""

    number: int
    name: str
    direction: str
    fields: list[list[str]]


def sections() -> list[Section]:
    """Read the document."""
    found: list[Section] = []
    title, lines = "", list[str]()
    for line in [*DOCUMENT.read_text(encoding="utf-8").splitlines(), "# end"]:
        heading = _HEADING.fullmatch(line)
        if heading is None:
            lines.append(line)
            continue
        found.append(Section(title, "\n".join(lines), list(_rows(lines))))
        title, lines = heading[1], []
    return found


def section(title: str) -> Section:
    """Return the section of that title."""
    return next(found for found in sections() if found.title == title)


def described_messages() -> list[DescribedMessage]:
    """Return the messages in the document's order."""
    return [
        DescribedMessage(int(match[1]), match[2], match[3], found.rows)
        for found in sections()
        if (match := _MESSAGE.fullmatch(found.title))
    ]


def wire_name(kind: type[msgspec.Struct]) -> str:
    """Return a message's name as the document writes it: TASK_VIEWS for TaskViews."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).upper()


def bare(cell: str) -> str:
    """Return a cell without its code marks."""
    return cell.strip("`")


def _rows(lines: list[str]) -> Iterator[list[str]]:
    previous = ""
    for line in lines:
        is_head = not previous.startswith("|")
        is_rule = set(line) <= set("|-")
        if line.startswith("|") and not is_head and not is_rule:
            yield [cell.strip() for cell in line.strip("|").split("|")]
        previous = line
