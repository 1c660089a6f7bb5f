"""`taskd fsck` and `taskd recover`: the data directory of a server that is stopped."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from taskd.cli.exits import Exit
from taskd.cli.folders import state_dir
from taskd.cli.options import json_option
from taskd.cli.output import hint, say, say_json
from taskd_protocol.errors import ConfigInvalid, StoreCorrupt
from taskd_protocol.ids import format_task_id

if TYPE_CHECKING:
    from taskd.text import Json

LINEAGE_BYTES = 16

_DATA_DIR = click.option("--data-dir", metavar="DIR", type=click.Path(path_type=Path), help="Of the stopped server.")


@json_option
@click.command
@_DATA_DIR
@click.option(
    "--store", metavar="DIR", type=click.Path(path_type=Path), help="Check this store instead, such as BACKUP/store."
)
def fsck(*, data_dir: Path | None, store: Path | None, as_json: bool) -> int:
    """Check a stopped server's data directory.

    Reads everything, and derives every index and counter anew. The exit code is 0 when all agrees, else 65.
    """
    from taskd.store.fsck import fsck as check

    with store_of(data_dir) if store is None else nullcontext(store) as folder:
        report = check(folder, progress=_progress)
    if as_json:
        findings: Json = [{"rule": f.rule, "key": f.key, "text": f.text} for f in report.findings]
        say_json(
            {
                "clean": report.is_clean,
                "sequence": report.sequence,
                "tasks": dict(report.counts),
                "findings_count": report.findings_count,
                "findings": findings,
            }
        )
    else:
        counts = ", ".join(f"{count:,} {state}" for state, count in sorted(report.counts.items())) or "no tasks"
        say(f"{counts}, as of commit {report.sequence}")
        for finding in report.findings:
            say(f"{finding.rule}  {finding.key}  {finding.text}")
    if not report.is_clean:
        raise StoreCorrupt(f"findings: {report.findings_count}; restore a backup, or keep it for whoever can tell why")
    return Exit.DONE


@json_option
@click.command
@_DATA_DIR
@click.option(
    "--accept-loss", is_flag=True, help="Replace the store by what is left; the damaged one is kept beside it."
)
def recover(*, data_dir: Path | None, accept_loss: bool, as_json: bool) -> int:
    """Save what can be saved of a damaged data directory.

    For a server that does not start because its log is damaged, or that learned that its data are older than what
    it told. Tells what would be lost; with --accept-loss it goes on with what there is before the damage.
    """
    from taskd.server.clock import SystemClock
    from taskd.store.recover import recover as mend

    with store_of(data_dir) as store:
        recovery = mend(
            store,
            new_lineage=secrets.token_bytes(LINEAGE_BYTES),
            now_ms=SystemClock().wall_ms(),
            accept_loss=accept_loss,
            progress=_progress,
        )
    lost = [format_task_id(task_id) for task_id in recovery.lost]
    if as_json:
        say_json(
            {
                "needed": recovery.needed,
                "recovered": recovery.damaged is not None,
                "sequence": recovery.sequence,
                "sequence_seen": recovery.sequence_seen,
                "lost_count": recovery.lost_count,
                "lost": lost,
                "tasks": dict(recovery.report.counts),
                "damaged": None if recovery.damaged is None else str(recovery.damaged),
            }
        )
    elif not recovery.needed:
        say("the store opens: nothing to recover; `taskd fsck` checks all of it")
    else:
        say(f"kept up to commit {recovery.sequence}; commit {recovery.sequence_seen} is known to have been there")
        say(f"{recovery.lost_count:,} tasks beyond it can still be seen and are lost{':' if lost else ''}")
        for task_id in lost:
            say(f"  {task_id}")
        if recovery.damaged is not None:
            say(f"the damaged store is kept in {recovery.damaged}; start the server again")
    if recovery.needed and recovery.damaged is None:
        raise StoreCorrupt("nothing was changed: run it with --accept-loss to go on with what is left")
    return Exit.DONE


@contextmanager
def store_of(data_dir: Path | None) -> Iterator[Path]:
    """Take the data directory for ourselves; give the folder of its store.

    Raises:
        ConfigInvalid: There is no store in it.
        DataDirInUse: A server runs on it.
    """
    from taskd.server.datadir import open_data_dir

    root = data_dir or Path(os.environ.get("TASKD_DATA_DIR") or state_dir() / "server")
    if not (root / "mark.key").is_file():
        raise ConfigInvalid(f"{root} is no data directory of a taskd server; name one with --data-dir")
    opened = open_data_dir(root, secrets.token_bytes)
    try:
        yield opened.store
    finally:
        opened.close()


def _progress(tasks: int) -> None:
    if os.isatty(2):
        hint(f"{tasks:,} tasks are checked")
