"""The demo's report: what the measures of a whole library say about it. Pure: measures in, tables out."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from taskd.cli.demo.measure import Measured

TOP: Final = 8
"""Rows of each table: enough to find a surprise, few enough to read."""

_FUNCTIONS_MIN: Final = 10
"""Modules with fewer are left out of the most tangled ones: one function is no tangle."""

_TESTS: Final = frozenset({"test", "tests", "idle_test"})
"""Folders whose files are counted, and left out of the rankings: nobody asks which test is the longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One ranking."""

    title: str
    headers: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is printed at the end."""

    totals: list[str]
    tables: list[Table]


def source_files(root: Path) -> list[Path]:
    """Return every Python file of a library, without what others installed into it, in a steady order."""
    foreign = {"site-packages", "dist-packages", "__pycache__"}
    return sorted(path for path in root.rglob("*.py") if foreign.isdisjoint(path.relative_to(root).parts))


def make_report(root: PurePath, measures: Iterable[Measured]) -> Report:
    """Rank what was measured.

    Args:
        root: Of the library; module names are told from it.
        measures: One for each file.
    """
    modules = {module_name(root, measured["path"]): measured for measured in measures}
    library = {name: measured for name, measured in modules.items() if _TESTS.isdisjoint(name.split("."))}
    return Report(
        totals=_totals(modules, library),
        tables=[_largest(library), _most_tangled(library), _longest_functions(library), _hubs(library)],
    )


def module_name(root: PurePath, path: str) -> str:
    """Return the module's dotted name; a package is named as itself, without ``__init__``."""
    parts = PurePath(path).relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _totals(modules: dict[str, Measured], library: dict[str, Measured]) -> list[str]:
    measures = modules.values()
    unreadable = sorted(name for name, measured in modules.items() if "unreadable" in measured)
    tests = len(modules) - len(library)
    lines, functions = _sum(measures, "lines"), _sum(measures, "functions")
    classes, branches = _sum(measures, "classes"), _sum(measures, "branches")
    totals = [
        f"{len(modules):,} files, {lines:,} lines: {len(library):,} modules of the library, {tests:,} of its tests",
        f"{functions:,} functions, {classes:,} classes, {branches:,} branches",
    ]
    if unreadable:
        shown = ", ".join(unreadable[:3]) + (", …" if len(unreadable) > 3 else "")  # noqa: PLR2004 - three names fit a line
        totals.append(f"{len(unreadable)} are no valid Python, most of them on purpose: {shown}")
    return totals


def _largest(library: dict[str, Measured]) -> Table:
    ranked = sorted(library.items(), key=lambda item: (-item[1]["lines"], item[0]))[:TOP]
    return Table(
        title="Largest modules",
        headers=("module", "lines", "functions", "classes"),
        rows=[
            (name, f"{measured['lines']:,}", f"{measured['functions']:,}", f"{measured['classes']:,}")
            for name, measured in ranked
        ],
    )


def _most_tangled(library: dict[str, Measured]) -> Table:
    def tangle(measured: Measured) -> float:
        return measured["branches"] / measured["functions"]

    many = [(name, measured) for name, measured in library.items() if measured["functions"] >= _FUNCTIONS_MIN]
    ranked = sorted(many, key=lambda item: (-tangle(item[1]), item[0]))[:TOP]
    rows = []
    for name, measured in ranked:
        worst = measured["most_branched"]
        assert worst is not None  # it has functions
        rows.append((name, f"{tangle(measured):.1f}", f"{worst['name']}: {worst['branches']}"))
    return Table(
        title="Most tangled modules", headers=("module", "branches per function", "most in one function"), rows=rows
    )


def _longest_functions(library: dict[str, Measured]) -> Table:
    longest = [(name, function) for name, measured in library.items() if (function := measured["longest"]) is not None]
    ranked = sorted(longest, key=lambda item: (-item[1]["lines"], item[0]))[:TOP]
    return Table(
        title="Longest functions, one for each module",
        headers=("function", "lines", "branches"),
        rows=[
            (f"{name}:{function['line']} {function['name']}", f"{function['lines']:,}", f"{function['branches']:,}")
            for name, function in ranked
        ],
    )


def _hubs(library: dict[str, Measured]) -> Table:
    """Rank modules by how many others import them."""
    importers: Counter[str] = Counter()
    for name, measured in library.items():
        package = name if PurePath(measured["path"]).name == "__init__.py" else name.rpartition(".")[0]
        # a package that is the root itself has no name of its own
        imported = {_absolute(each, package.removeprefix("__init__")) for each in measured["imports"]}
        importers.update(imported - {name, ""})
    ranked = sorted(importers.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    return Table(
        title="Import hubs",
        headers=("module", "imported by", "imports"),
        rows=[(name, f"{count:,}", _imports_of(name, library)) for name, count in ranked],
    )


def _imports_of(name: str, library: dict[str, Measured]) -> str:
    if name in library:
        return f"{len(library[name]['imports'])}"
    return "built in" if name in sys.builtin_module_names else "lies elsewhere"


def _absolute(imported: str, package: str) -> str:
    """Return the dotted name of an import that was written in a module of the package."""
    name = imported.lstrip(".")
    level = len(imported) - len(name)
    if not level:
        return name
    around = package.split(".") if package else []
    return ".".join([*around[: len(around) - level + 1], *([name] if name else [])])


def _sum(measures: Iterable[Measured], what: str) -> int:
    return sum(count for measured in measures if isinstance(count := measured.get(what), int))
