"""The demo's task: parses one source file and measures it. What agents import; a module like a user's own."""

import ast
import warnings
from pathlib import Path
from typing import Final, NotRequired, TypedDict

from taskd import App

app = App()

_BRANCHES: Final = frozenset(
    {
        ast.If,
        ast.IfExp,
        ast.For,
        ast.AsyncFor,
        ast.While,
        ast.ExceptHandler,
        ast.Assert,
        ast.comprehension,
        ast.match_case,
    }
)
"""Each is one more way through the code; so is each ``and`` and ``or``."""

_LEAVES: Final = frozenset({ast.Name, ast.Constant, ast.Load, ast.Store, ast.Del})
"""Half of all nodes; nothing that counts is in them."""


class Function(TypedDict):
    """One function or method."""

    name: str
    line: int
    lines: int
    branches: int


class Measured(TypedDict):
    """What one file came to."""

    path: str
    lines: int
    functions: int
    classes: int
    branches: int
    imports: list[str]
    """Modules as the file names them, relative ones with their dots; each once."""
    longest: Function | None
    most_branched: Function | None
    unreadable: NotRequired[str]
    """Why it cannot be parsed; then all that is counted are lines."""


@app.task(name="taskd.demo.measure", queue="demo")
def measure(path: str) -> Measured:
    """Parse one file and measure it; one that is not valid Python is told as such."""
    source = Path(path).read_bytes()
    measured = Measured(
        path=path,
        lines=source.count(b"\n") + (not source.endswith(b"\n") and bool(source)),
        functions=0,
        classes=0,
        branches=0,
        imports=[],
        longest=None,
        most_branched=None,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in old strings; nobody here will mend them
            tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        measured["unreadable"] = f"{type(error).__name__}: {error.args[0]}"
        return measured
    _count(tree, measured)
    return measured


def _count(tree: ast.Module, measured: Measured) -> None:
    functions: list[Function] = []
    imports: set[str] = set()
    pending: list[tuple[ast.AST, Function | None]] = [(tree, None)]  # nodes with the innermost function around them
    while pending:
        node, around = pending.pop()
        kind = type(node)
        if kind in _BRANCHES or isinstance(node, ast.BoolOp):
            branches = len(node.values) - 1 if isinstance(node, ast.BoolOp) else 1
            measured["branches"] += branches
            if around is not None:
                around["branches"] += branches
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            around = Function(name=node.name, line=node.lineno, lines=lines, branches=0)
            functions.append(around)
        elif kind is ast.ClassDef:
            measured["classes"] += 1
        elif isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imports.add("." * node.level + (node.module or ""))
        pending += [(child, around) for child in ast.iter_child_nodes(node) if type(child) not in _LEAVES]
    measured["functions"] = len(functions)
    measured["imports"] = sorted(imports)
    # of equals the one that comes first in the file
    measured["longest"] = max(functions, key=lambda one: (one["lines"], -one["line"]), default=None)
    measured["most_branched"] = max(functions, key=lambda one: (one["branches"], -one["line"]), default=None)
