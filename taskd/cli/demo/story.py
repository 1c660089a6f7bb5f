"""What happens in the demo, step by step, and the proof at its end that nothing was lost or counted twice."""

import contextlib
import os
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from taskd.cli.demo import stage as stages
from taskd.cli.demo import steps
from taskd.cli.demo.measure import Measured, app, measure
from taskd.cli.demo.report import source_files
from taskd.cli.demo.steps import Told
from taskd.cli.exits import Exit
from taskd.client.client import Client
from taskd.client.clock import mono_s
from taskd_protocol.errors import ConfigInvalid
from taskd_protocol.ids import format_task_id
from taskd_protocol.limits import HEARTBEATS_MISSED, PAGE_ROWS_MAX
from taskd_protocol.messages import TaskList, TaskPage, TaskView
from taskd_protocol.workflow import member_id

AGENTS: Final = ("ash", "birch")
VICTIM: Final = AGENTS[0]
PATIENCE_S: Final = 180.0
"""For all of the work: ten times what it takes on a slow machine."""
_LOOK_S: Final = 0.05
_QUARTERS: Final = 4
_SHOWN: Final = 4
"""Tasks that were run again and are named."""
_PIPE_COLUMNS: Final = 100
"""Width of the output where nobody's terminal sets one."""

_PROBLEMS_SHOWN: Final = 10
_NEXT: Final = """
Where to look next:
  taskd dev yourmodule           a server and an agent for the tasks in yourmodule.py
  taskd submit NAME '[1, "two"]' --wait
  taskd run -- make test         a command on an agent, as if it ran here
  taskd --help                   everything else"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How the work went."""

    ids: list[bytes]
    """Of the tasks that measured, in the order of the files."""
    measures: list[Measured]
    problems: list[str]
    """What did not succeed."""
    report: Told | None
    """None: it was not written."""
    seconds: float
    """From the submit to the report."""
    rate: float
    """Tasks per second while both agents were there."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What the demo has to show for itself."""

    tasks: int
    seconds: float
    rate: float
    """Tasks per second while both agents were there."""
    again: list[str]
    """Files whose task was run more than once."""
    problems: list[str]
    """What speaks against every file having been measured exactly once."""


def tell(root: Path, python: str | None) -> int:
    """Play the demo on the Python files in ``root``; return the exit code."""
    console = Console(highlight=False, width=None if os.isatty(1) else _PIPE_COLUMNS)
    files = source_files(root)
    if not files:
        raise ConfigInvalid(f"no Python files in {root}; choose another --directory")
    console.print(
        f"[bold]taskd demo[/]: {len(files):,} source files of {escape(str(root))}, a workflow with one task for each\n"
    )
    with stages.set_up() as stage:
        console.print(f"server   {stage.address}, TLS, in {stage.home}")
        console.print(f"page     {stage.page} (logs in once)", soft_wrap=True)
        processes = max(1, (os.cpu_count() or 1) // len(AGENTS))
        stage.add_agents(AGENTS, steps.__name__, processes, python)
        for name, child in stage.agents.items():
            console.print(f"agent    {name}, process {child.pid}, {processes} worker(s)")
        with contextlib.closing(app):
            run = _work(console, stage, str(root), len(files))
            views = _views(app.client)
    problems = [*run.problems, *_unaccounted(files, run, views)]
    names = {task_id: path.relative_to(root) for task_id, path in zip(run.ids, files, strict=False)}
    again = sorted(str(names[view.id]) for view in views.values() if view.attempt > 1 and view.id in names)
    console.print()
    if run.report is not None:
        _print_report(console, run.report)
    _print_proof(console, Ending(len(files), run.seconds, run.rate, again, problems))
    return Exit.TASK_FAILED if problems else Exit.DONE


def library_of(python: str) -> Path:
    """Return where an interpreter's standard library is.

    Raises:
        ConfigInvalid: It is no Python.
    """
    code = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    try:
        found = subprocess.run([python, "-Ic", code], capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - the interpreter that the user names
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigInvalid(f"--python {python} is no Python interpreter ({error}); name another") from None
    return Path(found)


def _work(console: Console, stage: stages.Stage, root: str, count: int) -> Run:
    """Submit the workflow, kill one agent halfway through its map, and take in what came of it."""
    began_s = mono_s()
    graph = steps.Graph(root)
    console.print(
        f"submit   split → measure, {count:,} times → merge → report, safe on disk after {mono_s() - began_s:.2f} s\n"
    )
    rate = 0.0
    with _Progress(console, count) as progress:
        while (state := graph.run.state()) == "running" and mono_s() - began_s < PATIENCE_S:
            ended = _ended(graph)
            if not rate and ended >= max(1, count // 2):
                rate = ended / (mono_s() - began_s)
                _kill(console, stage)
            progress.show(ended)
            time.sleep(_LOOK_S)
        progress.show(_ended(graph))
    items = graph.run.partial(graph.measures)
    problems = [
        str(item.error) if item.error else f"item {item.index} is {item.state}" for item in items if not item.value
    ]
    if state != "succeeded":
        problems.append(f"the workflow {graph.run.id} is {state}")
    return Run(
        ids=[member_id(graph.run.raw_id, graph.measures.position, item.index) for item in items],
        measures=[item.value for item in items if item.value],
        problems=problems,
        report=graph.run.result(graph.report) if state == "succeeded" else None,
        seconds=mono_s() - began_s,
        rate=rate,
    )


def _ended(graph: steps.Graph) -> int:
    node = graph.run.status().nodes[graph.measures.position]
    return node.succeeded + node.failed


def _kill(console: Console, stage: stages.Stage) -> None:
    victim = stage.agents[VICTIM]
    victim.kill()
    victim.wait()
    patience_s = stages.HEARTBEAT_S * HEARTBEATS_MISSED
    console.print(
        f"[bold red]kill -9 {victim.pid}[/]: the agent {VICTIM} is gone, in the midst of its work. {AGENTS[1]} goes on;"
        f" what {VICTIM} held follows when the server has missed it for {patience_s} s."
    )


class _Progress:
    """A bar on a terminal, a line at each quarter elsewhere."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._done = 0
        columns = (BarColumn(bar_width=None), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: int) -> None:
        """Show that so many tasks have ended."""
        before, self._done = self._done, done
        self._bar.update(self._task, completed=done)
        if self._bar.disable and done * _QUARTERS // self._total > before * _QUARTERS // self._total:
            self._console.print(f"{done:,} of {self._total:,} files are measured")


def _views(client: Client) -> dict[bytes, TaskView]:
    """Ask the server for what it has recorded of every task of the demo."""
    views: dict[bytes, TaskView] = {}
    cursor = b""
    while True:
        page = client.call(TaskList(0, name=measure.name, limit=PAGE_ROWS_MAX, cursor=cursor), TaskPage)
        views.update((view.id, view) for view in page.views)
        cursor = page.cursor
        if not cursor:
            return views


def _unaccounted(files: Sequence[Path], run: Run, views: Mapping[bytes, TaskView]) -> list[str]:
    """Return what speaks against every file having been measured exactly once; empty: nothing does."""
    measured = Counter(measured["path"] for measured in run.measures)
    wanted = {str(path) for path in files}
    findings = [f"{path} was measured {measured[path]} times" for path in sorted(wanted) if measured[path] != 1]
    findings += [f"{path} was measured, and nobody asked for it" for path in sorted(measured.keys() - wanted)]
    ids = set(run.ids)
    findings += [f"task {format_task_id(lost)} is not stored" for lost in sorted(ids - views.keys())]
    findings += [f"task {format_task_id(other)} was not submitted here" for other in sorted(views.keys() - ids)]
    findings += [
        f"task {format_task_id(view.id)} is recorded as {view.state}"
        for view in views.values()
        if view.state != "succeeded"
    ]
    return findings


def _print_report(console: Console, report: Told) -> None:
    for line in report["totals"]:
        console.print(line)
    for ranking in report["tables"]:
        table = Table(title=ranking["title"], title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for number, header in enumerate(ranking["headers"]):
            table.add_column(header, justify="right" if number == 1 else "left", overflow="fold")
        for row in ranking["rows"]:
            table.add_row(*map(escape, row))
        console.print()
        console.print(table)


def _print_proof(console: Console, ending: Ending) -> None:
    again = ending.again
    console.print(
        f"{ending.tasks:,} tasks in {ending.seconds:.1f} s; {ending.rate:,.0f} tasks/s while both agents were there"
    )
    shown = ", ".join(again[:_SHOWN]) + (", …" if len(again) > _SHOWN else "")
    console.print(f"{len(again)} were run again because {VICTIM} was killed" + (f": {escape(shown)}" if again else ""))
    if ending.problems:
        console.print(f"[bold red]not every file is accounted for[/]: {len(ending.problems)} findings")
        for problem in ending.problems[:_PROBLEMS_SHOWN]:
            console.print(f"  {problem}", markup=False)
        return
    console.print("[bold green]every file is accounted for, exactly once[/]")
    console.print(_NEXT)
