"""Workflows in files: TOML or JSON in, nodes out, with everything that is wrong told at once.

A file names its nodes, in any order; an argument ``{node = "fetch"}`` stands for that node's result.
"""

import difflib
import itertools
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, cast

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from taskd.client.limits import refuse_declaring
from taskd.client.options import Options
from taskd.client.workflow import LATER_DEFAULT, check_phases
from taskd.text.spans import read_span_ms
from taskd_protocol.command import Word, pack_command
from taskd_protocol.errors import BadRequest, TaskdError
from taskd_protocol.limits import PAYLOAD_BYTES_MAX
from taskd_protocol.payload import Input, pack, pack_arguments
from taskd_protocol.schedule import Schedule, ScheduledWorkflow
from taskd_protocol.task import COMMAND_NAME, TaskSpec
from taskd_protocol.workflow import (
    ALL_SUCCEEDED,
    COMPENSATE,
    FINISH,
    MAP,
    ON_FAILURE,
    ON_SUCCESS,
    POLICIES,
    SIGNAL,
    SLEEP,
    VALUE,
    Choice,
    Node,
    check_nodes,
)

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Larger ones are refused unread."""

REFERENCE: Final = "node"
"""The one key of a table that stands for a node's result."""

_TOP: Final = ("name", "policy", "schedule", "nodes")
_KINDS: Final = ("task", "command", "value", "sleep", "signal")
_PHASES: Final = {"success": ON_SUCCESS, "failure": ON_FAILURE}


class _Table(msgspec.Struct, kw_only=True):
    """What may be said of a node in a file, beside the options of its task."""

    task: str = ""
    command: list[object] = []
    value: object = UNSET
    sleep: float | str | UnsetType = UNSET
    signal: str = ""
    args: list[object] = []
    kwargs: dict[str, object] = {}
    env: dict[str, object] = {}
    cwd: object = None
    over: object = UNSET
    in_flight: int = 0
    after: list[str] = []
    when: str = ""
    only_if: dict[str, object] = {}
    may_fail: bool = False
    on: str = ""
    compensates: str = ""


_FIELDS: Final = {each.name: each for each in msgspec.structs.fields(_Table)}
_OPTIONS: Final = {
    each.name: each
    for each in msgspec.structs.fields(Options)
    if each.name not in {"at", "key", "unique", "unique_key", "replace"}
}
_SECONDS: Final = ("delay", "timeout", "soft_timeout", "ttl", "deadline", "heartbeat", "min_life")
_OF_KIND: Final = {
    "args": {"task"},
    "kwargs": {"task"},
    "over": {"task"},
    "in_flight": {"task"},
    "env": {"command"},
    "cwd": {"command"},
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    message: str
    node: str = ""
    """Empty: it is about the whole."""
    line: int = 0
    """From 1; 0: not known."""

    def told(self, file: str) -> str:
        """Return it as a compiler would say it."""
        place = f"{file}:{self.line}" if self.line else file
        about = f"node {self.node!r}: " if self.node else ""
        return f"{place}: {about}{' '.join(self.message.split())}"


@dataclass(slots=True)
class FlowFile:
    """A workflow as a file has it.

    Attributes:
        nodes: In an order that can run; complete only if there are no problems.
        schedule: When the server is to start it; None: the file does not say.
    """

    name: str = ""
    policy: str = FINISH
    nodes: list[Node] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    schedule: Schedule | None = None


class _Wrong(Exception):
    """Something about a node is wrong."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.key = key


def read_flow(path: Path) -> FlowFile:
    """Read a workflow from a file whose name ends in ``.toml`` or ``.json``; its problems are in what is returned."""
    flow = FlowFile()
    text = _text(path, flow)
    document = None if text is None else _document(path, text, flow)
    if text is None or document is None:
        return flow
    _Reader(flow, text).read(document)
    flow.problems.sort(key=lambda problem: problem.line)
    return flow


def read_flow_of(document: Mapping[str, object]) -> FlowFile:
    """Read a workflow from what a file would hold; of its problems no lines are known."""
    flow = FlowFile()
    _Reader(flow, "").read(document)
    return flow


def _text(path: Path, flow: FlowFile) -> str | None:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            flow.problems.append(Problem(f"the file has more than {FILE_BYTES_MAX} bytes"))
            return None
        return path.read_text(encoding="utf-8")
    except OSError as error:
        flow.problems.append(Problem(f"it cannot be read: {error.strerror or error}"))
    except UnicodeDecodeError as error:
        flow.problems.append(Problem(f"it is not in UTF-8, at byte {error.start}"))
    return None


def _once(flow: FlowFile, text: str, pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object, and note names that stand in it twice: the last one would count in silence."""
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            there = [found.start() for found in re.finditer(re.escape(json.dumps(name)) + r"\s*:", text)]
            line = text.count("\n", 0, there[-1]) + 1 if len(there) == count else 0
            flow.problems.append(Problem(f"{name[:64]!r} stands {count} times in one object", "", line))
    return dict(pairs)


def _document(path: Path, text: str, flow: FlowFile) -> Mapping[str, object] | None:
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix == ".json":
            read: object = json.loads(text, object_pairs_hook=partial(_once, flow, text))
            if isinstance(read, dict):
                return cast("dict[str, object]", read)
            flow.problems.append(Problem("it is no JSON object"))
        else:
            flow.problems.append(Problem("its name ends neither in .toml nor in .json"))
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        flow.problems.append(Problem(f"no TOML: {error}", line=int(found[1]) if found else 0))
    except json.JSONDecodeError as error:
        flow.problems.append(
            Problem(f"no JSON: {error.msg} (at line {error.lineno}, column {error.colno})", "", error.lineno)
        )
    except RecursionError:
        flow.problems.append(Problem("it nests too deeply"))
    return None


class _Reader:
    """Reads one document."""

    def __init__(self, flow: FlowFile, text: str) -> None:
        self._flow = flow
        self._lines = text.splitlines()
        self._tables: dict[str, Mapping[str, object]] = {}
        self._at: dict[str, int] = {}  # positions of the nodes that are placed

    def read(self, document: Mapping[str, object]) -> None:
        """Fill in the flow."""
        flow = self._flow
        for key in document.keys() - set(_TOP):
            flow.problems.append(Problem(f"{key!r} is unknown{_meant(key, _TOP)}", "", self._line("", key)))
        self._read_head(document)
        nodes = document.get("nodes")
        if not isinstance(nodes, dict) or not nodes:
            flow.problems.append(Problem("it has no nodes: write a table [nodes.NAME] for each"))
            return
        self._read_nodes(nodes)
        if "schedule" in document:
            self._read_schedule(document["schedule"])

    def _read_head(self, document: Mapping[str, object]) -> None:
        flow, name, policy = self._flow, document.get("name", ""), document.get("policy", FINISH)
        if not isinstance(name, str) or not name:
            flow.problems.append(Problem('it has no name: write name = "…"', "", self._line("", "name")))
        else:
            flow.name = name
        if policy not in POLICIES:
            text = f"policy {policy!r} is unknown; use {' or '.join(POLICIES)}"
            flow.problems.append(Problem(text, "", self._line("", "policy")))
        else:
            flow.policy = str(policy)

    def _read_nodes(self, nodes: Mapping[str, object]) -> None:
        flow = self._flow
        for node, table in nodes.items():
            if isinstance(table, dict):
                self._tables[node] = cast("dict[str, object]", table)
            else:
                self._wrong(node, "it is no table")
        for node in self._ordered():
            self._node(node, self._tables[node])
        if not flow.problems:
            try:
                check_phases(flow.nodes)
            except TaskdError as error:
                flow.problems.append(Problem(error.message))

    def _read_schedule(self, table: object) -> None:
        from taskd.text.flow_schedules import FIELDS, read_schedule  # noqa: PLC0415 - most files have none

        def wrong(message: str, key: str = "") -> None:
            flow.problems.append(Problem(f"schedule: {message}", "", self._line_of_schedule(key)))

        flow = self._flow
        if not isinstance(table, dict):
            wrong("it is no table: write [schedule], and below it cron or every")
            return
        for key in table.keys() - FIELDS.keys():
            wrong(f"{key!r} is unknown{_meant(key, list(FIELDS))}", key)
        workflow = ScheduledWorkflow(flow.name, flow.nodes, flow.policy)
        found = len(flow.problems)
        made = read_schedule(cast("dict[str, object]", table), workflow, wrong, is_whole=not found)
        flow.schedule = made if not found else None

    # -- the order ------------------------------------------------------------------------

    def _ordered(self) -> list[str]:
        """Return the nodes in an order in which each comes after those that it names, else as they stand."""
        left = {node: dict.fromkeys(self._named(node)) for node in self._tables}
        for node, named in left.items():
            for other in [other for other in named if other not in left]:
                self._wrong(node, f"there is no node {other!r}{_meant(other, list(left))}", other, quoted=True)
                del named[other]
        ordered: list[str] = []
        while left:
            ready = [node for node, named in left.items() if not named.keys() & left.keys()]
            if not ready:
                ready = self._cycle(left)
            ordered += ready
            for node in ready:
                del left[node]
        return ordered

    def _named(self, node: str) -> Iterator[str]:
        """Give the nodes that one names, whatever else is wrong with it."""
        table = self._tables[node]
        for key in ("args", "kwargs", "command", "env", "cwd"):
            yield from _references(table.get(key))
        over, after, only_if = table.get("over"), table.get("after"), table.get("only_if")
        yield from [over] if isinstance(over, str) else _references(over)
        yield from [other for other in after if isinstance(other, str)] if isinstance(after, list) else ()
        yield from only_if if isinstance(only_if, dict) else ()
        if isinstance(compensates := table.get("compensates"), str) and compensates:
            yield compensates

    def _cycle(self, left: Mapping[str, Mapping[str, None]]) -> list[str]:
        """Tell of one circle among nodes of which none can be first; return those in it."""
        chain = [next(iter(left))]
        while chain[-1] not in chain[:-1]:
            chain.append(next(other for other in left[chain[-1]] if other in left))
        circle = chain[chain.index(chain[-1]) :]
        self._wrong(circle[0], f"it waits for itself: {' waits for '.join(circle)}")
        return circle[1:]

    # -- one node -------------------------------------------------------------------------

    def _node(self, name: str, table: Mapping[str, object]) -> None:
        problems = len(self._flow.problems)
        said, options = self._read_table(name, table)
        kinds = [kind for kind in _KINDS if kind in table]
        if len(kinds) != 1:
            what = f"it has {' and '.join(kinds)}" if kinds else "it says not what it is"
            self._wrong(name, f"{what}: say one of {', '.join(_KINDS)}")
            return
        for key in [key for key in said if key in _OF_KIND and kinds[0] not in _OF_KIND[key]]:
            self._wrong(name, f"{key} is not for a node with {kinds[0]}", key)
        made = Node(name, VALUE, packed=b"\xc0")
        if len(self._flow.problems) == problems and all(other in self._at for other in self._named(name)):
            try:
                made = self._make(name, kinds[0], _Table(**said), options)  # type: ignore[arg-type]  # each was converted
                check_nodes([made], len(self._flow.nodes), PAYLOAD_BYTES_MAX)
            except _Wrong as wrong:
                self._wrong(name, wrong.message, wrong.key)
            except TaskdError as error:
                self._wrong(name, error.message.removeprefix(f"node {name!r}: "))
        self._at[name] = len(self._flow.nodes)
        self._flow.nodes.append(made)

    def _read_table(self, name: str, table: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
        """Take each key of a node by its type; what is wrong is told."""
        said: dict[str, object] = {}
        options: dict[str, object] = {}
        for key, value in table.items():
            known = _OPTIONS.get(key) if key in _OPTIONS else _FIELDS.get(key)
            if known is None:
                self._wrong(name, f"{key!r} is unknown{_meant(key, [*_FIELDS, *_OPTIONS])}", key)
                continue
            try:
                if key in _SECONDS and isinstance(value, str):
                    options[key] = _seconds(key, value)
                else:
                    into = options if key in _OPTIONS else said
                    into[key] = msgspec.convert(value, known.type)
            except msgspec.ValidationError as error:
                self._wrong(name, f"{key}: {str(error).replace(' - at `$', ' at `' + key)}", key)
            except _Wrong as wrong:
                self._wrong(name, wrong.message, key)
        return said, options

    def _make(self, name: str, kind: str, table: _Table, options: Mapping[str, object]) -> Node:
        needs: list[int] = []
        node = Node(name)
        if kind in {"task", "command"}:
            if table.over is not UNSET:
                node = replace(node, kind=MAP, over=0, in_flight_max=table.in_flight)
                needs.append(self._over(name, table.over))
            node = replace(node, task=self._spec(kind, table, options, needs))
        elif kind == VALUE:
            node = replace(node, kind=VALUE, packed=pack(table.value))
        elif kind == SLEEP:
            seconds = table.sleep if isinstance(table.sleep, float) else _seconds("sleep", str(table.sleep))
            node = replace(node, kind=SLEEP, wait_ms=round(seconds * 1000))
        else:
            timeout = cast("float", options.get("timeout", 0.0))
            node = replace(node, kind=SIGNAL, signal=table.signal, wait_ms=round(timeout * 1000))
        stray = sorted(options.keys() - ({"timeout"} if kind == SIGNAL else set()))
        if node.task is None and stray:
            raise _Wrong(f"{stray[0]} is for a task; this node has {kind}", stray[0])
        return self._with_edges(node, table, needs)

    def _with_edges(self, node: Node, table: _Table, needs: list[int]) -> Node:
        choices = [Choice(self._at[other], pack(value)) for other, value in table.only_if.items()]
        behind = dict.fromkeys([*(self._at[other] for other in table.after), *(choice.node for choice in choices)])
        if table.on and table.on not in _PHASES:
            raise _Wrong(f"on {table.on!r} is unknown; use success or failure", "on")
        if table.on and table.compensates:
            raise _Wrong("it has both on and compensates; it runs at one time only", "on")
        phase = COMPENSATE if table.compensates else _PHASES.get(table.on, "")
        compensates = self._at[table.compensates] if table.compensates else -1
        return replace(
            node,
            needs=needs,
            after=[each for each in behind if each not in needs],
            when=table.when or (LATER_DEFAULT if phase else ALL_SUCCEEDED),
            only_if=choices,
            may_fail=table.may_fail,
            phase=phase,
            compensates=compensates,
        )

    def _over(self, name: str, over: object) -> int:
        """Return the position of the list that a node maps over; one that stands there becomes a node before it."""
        if isinstance(over, str):
            return self._at[over]
        if not isinstance(over, list) or any(_references(over)):
            raise _Wrong("over is the name of a node, or a list of values", "over")
        items = next(items for n in itertools.count() if (items := f"{name}-items{n or ''}") not in self._tables)
        self._flow.nodes.append(Node(items, VALUE, packed=pack(over)))
        return len(self._flow.nodes) - 1

    def _spec(self, kind: str, table: _Table, options: Mapping[str, object], needs: list[int]) -> TaskSpec:
        mapped = len(needs)

        def put(value: object) -> object:
            if (other := _reference(value)) is not None:
                position = self._at[other]
                if position in needs[:mapped]:
                    raise _Wrong(
                        f"it maps over {other!r}, whose items take its place: that is no other argument", "over"
                    )
                if position not in needs:
                    needs.append(position)
                return Input(needs.index(position))
            if isinstance(value, dict):
                return {key: put(each) for key, each in value.items()}
            return [put(each) for each in value] if isinstance(value, list) else value

        chosen = msgspec.convert(options, Options)
        refuse_declaring(chosen.limits, table.task or COMMAND_NAME)
        if kind == "command":
            argv, cwd = [_word(put(word), "command") for word in table.command], put(table.cwd)
            env = {key: _word(put(word), "env") for key, word in table.env.items()}
            if not argv:
                raise _Wrong("command is empty: it is a list of words, the program first", "command")
            payload = pack_command(argv, env=env or None, cwd=None if cwd is None else _word(cwd, "cwd"))
            return replace(chosen.template(COMMAND_NAME), id=b"", payload=payload)
        first = [Input(0)] if mapped else []
        args, kwargs = cast("list[object]", put(table.args)), cast("dict[str, object]", put(table.kwargs))
        return replace(chosen.template(table.task), id=b"", payload=pack_arguments([*first, *args], kwargs))

    # -- problems -------------------------------------------------------------------------

    def _wrong(self, node: str, message: str, key: str = "", *, quoted: bool = False) -> None:
        self._flow.problems.append(Problem(message, node, self._line(node, key, quoted=quoted)))

    def _line(self, node: str, key: str, *, quoted: bool = False) -> int:
        """Return the line where a node, or something in it, stands, as far as that can be seen; 0: it cannot."""
        start = 0
        if node:
            name = rf"""["']?{re.escape(node)}["']?"""
            heads = rf"^\s*\[\s*nodes\s*\.\s*{name}\s*\]", rf"(?:^|[{{,\s]){name}\s*[:=]"
            start = next((line for head in heads if (line := self._search(head, 0))), 0)
            if not start or not key:
                return start
        wanted = rf"""["']{re.escape(key)}["']""" if quoted else rf"""(?:^|[{{,\s])["']?{re.escape(key)}["']?\s*[=:.]"""
        return self._search(wanted, start, r"^\s*\[\s*nodes\b" if node else "") or start

    def _line_of_schedule(self, key: str) -> int:
        heads = r"^\s*\[\s*schedule\s*\]", r"""(?:^|[{,\s])["']?schedule["']?\s*[:=]"""
        start = next((line for head in heads if (line := self._search(head, 0))), 0)
        if not start or not key:
            return start
        return self._search(rf"""(?:^|[{{,\s])["']?{re.escape(key)}["']?\s*[=:]""", start, r"^\s*\[") or start

    def _search(self, wanted: str, start: int, until: str = "") -> int:
        """Return the number of the first line from there on that has a pattern; 0: none has, before ``until``."""
        for number, line in enumerate(self._lines[max(0, start - 1) :], max(1, start)):
            if until and number > start and re.search(until, line):
                return 0
            if re.search(wanted, line):
                return number
        return 0


def _references(value: object) -> Iterator[str]:
    """Give the names of nodes whose results stand in a value."""
    if (other := _reference(value)) is not None:
        yield other
    elif isinstance(value, dict):
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def _reference(value: object) -> str | None:
    if isinstance(value, dict) and value.keys() == {REFERENCE} and isinstance(value[REFERENCE], str):
        return str(value[REFERENCE])
    return None


def _word(value: object, key: str) -> Word:
    if isinstance(value, str | Input):
        return value
    raise _Wrong(f'{key}: {value!r:.40} is no word; write text, or {{{REFERENCE} = "…"}}', key)


def _seconds(key: str, text: str) -> float:
    try:
        return read_span_ms(text, "s") / 1000
    except BadRequest as error:
        raise _Wrong(f"{key}: {error.message}", key) from None


def _meant(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""
