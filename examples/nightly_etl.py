"""A nightly ETL with a schedule and an approval, as a workflow.

At three in the morning, by the clock of Oslo, the orders that each region had the day before are extracted and
cleaned, all of them loaded into one table, and a person looks at the total before it is published. If publishing fails,
the table is removed again, and somebody is told. While one night waits for its approval, the next one waits for that.

    taskd dev nightly_etl                       # in this folder: a server, and an agent that has these tasks
    taskd schedule show nightly-etl             # in another terminal: when it starts
    taskd schedule trigger nightly-etl          # does not wait for the night; prints the workflow's id
    python nightly_etl.py 2026-11-29            # nor does this, which says the day
    taskd workflow show ID                      # the graph, and what it waits for
    taskd workflow signal ID approve '{"by": "ann"}'
    taskd workflow wait ID
"""

import datetime as dt
import json
import os
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

from taskd import App, Cron, Retry, Schedule, Workflow, WorkflowRun, current

app = App()

ZONE = "Europe/Oslo"
REGIONS = ("north", "south", "west")

Row = dict[str, object]


def warehouse() -> Path:
    """Return the folder that stands for a database here."""
    folder = Path(os.environ.get("WAREHOUSE", "warehouse"))
    folder.mkdir(exist_ok=True)
    return folder


@app.task
def day_of(said: str | None = None) -> str:
    """Return the day that was said, else the one before the night that this is for, however late it runs."""
    if said is not None:
        return said
    night = current().scheduled_for
    if night is None:
        raise ValueError("nobody has said which day: trigger a schedule, or give it")
    return (night.astimezone(ZoneInfo(ZONE)).date() - dt.timedelta(days=1)).isoformat()


@app.task(retry=Retry(max_attempts=5))
def extract(region: str, day: str) -> list[Row]:
    """Read a region's orders of a day; here they are made up."""
    return [{"region": region, "day": day, "id": number, "amount": f"{number}.50"} for number in range(1, 5)]


@app.task
def clean(rows: list[Row]) -> list[Row]:
    """Give each amount in cents."""
    return [{**row, "amount": round(float(str(row["amount"])) * 100)} for row in rows]


@app.task
def load(batches: list[list[Row]], day: str) -> str:
    """Write the day's table; return its name."""
    table = f"orders-{day}"
    (warehouse() / f"{table}.json").write_text(json.dumps([row for batch in batches for row in batch]))
    return table


@app.task
def unload(table: str) -> None:
    """Take back what ``load`` did."""
    (warehouse() / f"{table}.json").unlink(missing_ok=True)


@app.task
def check(table: str) -> int:
    """Return the total, for the person who approves."""
    rows: list[dict[str, int]] = json.loads((warehouse() / f"{table}.json").read_text())
    return sum(row["amount"] for row in rows)


@app.task(retry=Retry(max_attempts=1))
def publish(table: str, total: int, approval: dict[str, str]) -> str:
    """Let everybody see it."""
    if approval["by"] == "nobody":
        raise PermissionError("somebody must have approved it")
    line = f"{table}: {total} cents, approved by {approval['by']}"
    (warehouse() / "published.txt").write_text(line)
    return line


@app.task
def tell(day: str, total: int | None) -> None:
    """Tell somebody that it went wrong."""
    (warehouse() / "trouble.txt").write_text(f"the night of {day} failed, with a total of {total}")


@app.scheduled(Schedule(when=Cron("0 3 * * *", tz=ZONE), overlap="queue_one", missed="all", missed_max=7))
def nightly(said: str | None = None) -> Workflow:
    """Return the graph of one night."""
    with app.workflow("nightly-etl") as wf:
        day = day_of.node(said, name="day")
        raw = extract.node.map(REGIONS, day)
        batches = clean.node.map(raw, in_flight=2)
        table = load.node(batches, day, compensate=unload)
        total = check.node(table)
        approval = wf.signal("approve", timeout=8 * 3600, after=total)
        publish.node(table, total, approval)
        wf.on_failure(tell.node(day, total))
    return wf


def main() -> WorkflowRun:
    """Start one night's workflow."""
    run = nightly(sys.argv[1]).submit()
    print(run.id)
    return run


if __name__ == "__main__":
    main()
