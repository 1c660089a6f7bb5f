"""What happens in the demo, step by step, and the proof at its end that nothing was lost or counted twice."""

import contextlib
import os
import subprocess
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

from taskd.cli.demo import measure as work
from taskd.cli.demo import stage as stages
from taskd.cli.demo.measure import Measured
from taskd.cli.demo.report import Report, make_report, source_files
from taskd.cli.exits import Exit
from taskd.client.client import Client
from taskd.client.clock import mono_s
from taskd.client.handle import TaskHandle, as_completed
from taskd_protocol.errors import ConfigInvalid, TaskdError
from taskd_protocol.ids import format_task_id
from taskd_protocol.limits import HEARTBEATS_MISSED, PAGE_ROWS_MAX
from taskd_protocol.messages import TaskList, TaskPage, TaskView

AGENTS: Final = ("ash", "birch")
VICTIM: Final = AGENTS[0]
PATIENCE_S: Final = 180.0
"""For all of the work: ten times what it takes on a slow machine."""
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

Handle = TaskHandle[Measured]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How the work went."""

    handles: list[Handle]
    measures: list[Measured]
    problems: list[str]
    """Tasks that did not succeed."""
    seconds: float
    """From the first submit to the last result."""
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
    console.print(f"[bold]taskd demo[/]: {len(files):,} source files of {escape(str(root))}, one task for each\n")
    with stages.set_up() as stage:
        console.print(f"server   {stage.address}, TLS, in {stage.home}")
        processes = max(1, (os.cpu_count() or 1) // len(AGENTS))
        stage.add_agents(AGENTS, work.__name__, processes, python)
        for name, child in stage.agents.items():
            console.print(f"agent    {name}, process {child.pid}, {processes} worker(s)")
        with contextlib.closing(work.app):
            run = _work(console, stage, [str(path) for path in files])
            views = _views(work.app.client)
    problems = [*run.problems, *_unaccounted(files, run, views)]
    names = {handle.raw_id: path.relative_to(root) for handle, path in zip(run.handles, files, strict=True)}
    again = sorted(str(names[view.id]) for view in views.values() if view.attempt > 1 and view.id in names)
    console.print()
    _print_report(console, make_report(root, run.measures))
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


def _work(console: Console, stage: stages.Stage, paths: Sequence[str]) -> Run:
    """Submit everything, kill one agent halfway, and take in every result."""
    began_s = mono_s()
    handles = work.measure.map(paths)
    console.print(f"submit   {len(handles):,} tasks, safe on disk after {mono_s() - began_s:.2f} s\n")
    measures: list[Measured] = []
    problems: list[str] = []
    rate = 0.0
    with _Progress(console, len(handles)) as progress:
        for count, handle in enumerate(as_completed(handles, PATIENCE_S), start=1):
            try:
                measures.append(handle.result())
            except TaskdError as error:
                problems.append(error.message)
            if count == max(1, len(handles) // 2):
                rate = count / (mono_s() - began_s)
                _kill(console, stage)
            progress.advance()
    return Run(handles=handles, measures=measures, problems=problems, seconds=mono_s() - began_s, rate=rate)


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

    def advance(self) -> None:
        """Count one more task that has ended."""
        self._done += 1
        self._bar.advance(self._task)
        if self._bar.disable and self._done * _QUARTERS // self._total > (self._done - 1) * _QUARTERS // self._total:
            self._console.print(f"{self._done:,} of {self._total:,} files are measured")


def _views(client: Client) -> dict[bytes, TaskView]:
    """Ask the server for what it has recorded of every task of the demo."""
    views: dict[bytes, TaskView] = {}
    cursor = b""
    while True:
        page = client.call(TaskList(0, name=work.measure.name, limit=PAGE_ROWS_MAX, cursor=cursor), TaskPage)
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
    ids = {handle.raw_id for handle in run.handles}
    findings += [f"task {format_task_id(lost)} is not stored" for lost in sorted(ids - views.keys())]
    findings += [f"task {format_task_id(other)} was not submitted here" for other in sorted(views.keys() - ids)]
    findings += [
        f"task {format_task_id(view.id)} is recorded as {view.state}"
        for view in views.values()
        if view.state != "succeeded"
    ]
    return findings


def _print_report(console: Console, report: Report) -> None:
    for line in report.totals:
        console.print(line)
    for ranking in report.tables:
        table = Table(title=ranking.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for number, header in enumerate(ranking.headers):
            table.add_column(header, justify="right" if number == 1 else "left", overflow="fold")
        for row in ranking.rows:
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
