"""The demo's workflow: find the files, measure each, merge what came of it, write the report. What agents import."""

from dataclasses import asdict
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, TypedDict

from taskd.cli.demo.measure import Measured, app, measure
from taskd.cli.demo.report import make_report, module_name, source_files

if TYPE_CHECKING:
    from taskd.client.runs import WorkflowRun
    from taskd.client.workflow import NodeRef


class Ranking(TypedDict):
    """One table, as it travels; see ``report.Table``."""

    title: str
    headers: tuple[str, ...]
    rows: list[tuple[str, ...]]


class Told(TypedDict):
    """The report, as it travels; see ``report.Report``."""

    totals: list[str]
    tables: list[Ranking]


@app.task(name="taskd.demo.split", queue="demo")
def split(root: str) -> list[str]:
    """Find the files."""
    return [str(path) for path in source_files(Path(root))]


@app.task(name="taskd.demo.merge", queue="demo")
def merge(root: str, measures: list[Measured]) -> dict[str, Measured]:
    """Sort what was measured by the modules' names."""
    return dict(sorted((module_name(PurePath(root), measured["path"]), measured) for measured in measures))


@app.task(name="taskd.demo.report", queue="demo")
def report(root: str, modules: dict[str, Measured]) -> Told:
    """Rank the modules."""
    made: Told = asdict(make_report(PurePath(root), modules.values()))  # type: ignore[assignment]  # field for field
    return made


class Graph:
    """The workflow, submitted.

    Attributes:
        run: It.
        measures: The node that maps.
        report: The last node.
    """

    def __init__(self, root: str) -> None:
        """Submit it; return once it is durable."""
        with app.workflow("taskd.demo") as workflow:
            found = split.node(root)
            self.measures: NodeRef[list[Measured]] = measure.node.map(found)
            self.report: NodeRef[Told] = report.node(root, merge.node(root, self.measures))
        self.run: WorkflowRun = workflow.submit()
