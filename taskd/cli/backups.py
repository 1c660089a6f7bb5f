"""`taskd backup` and `taskd restore`."""

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from taskd import __version__
from taskd.cli.connection import server
from taskd.cli.exits import Exit
from taskd.cli.options import json_option, server_options
from taskd.cli.output import hint, say, say_json
from taskd.cli.stores import LINEAGE_BYTES, store_of
from taskd.client.client import Client
from taskd.text.values import bytes_text
from taskd_protocol.errors import ConfigInvalid, StoreCorrupt, error_from_code
from taskd_protocol.house_messages import Backup, BackupView

if TYPE_CHECKING:
    from taskd.store.fsck import Report

ID_BYTES: Final = 16


@json_option
@server_options
@click.command
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--data-dir", metavar="DIR", type=click.Path(path_type=Path), help="Of a stopped server; else the running one's."
)
@click.option("--no-keys", is_flag=True, help="Leave out the CA and its key: who restores it gives peers a new CA.")
def backup(*, folder: Path, data_dir: Path | None, no_keys: bool, as_json: bool) -> int:
    """Copy a server's data into a new folder, and check the copy.

    A running server writes DIR on its own machine and serves on meanwhile; the token's role must be operator or
    admin. The copy shares nothing with the data directory: DIR may be moved anywhere. Whoever can read it can read
    every task, and with the keys stand in for the server.
    """
    if data_dir is None:
        with server() as client:
            sequence, tasks, size = _of_running(client, folder, with_keys=not no_keys)
    else:
        sequence, tasks, size = _of_stopped(data_dir, folder, with_keys=not no_keys)
    if as_json:
        say_json({"path": str(folder), "sequence": sequence, "bytes": size, "tasks": dict(tasks), "keys": not no_keys})
    else:
        say(f"{folder}: {_counted(tasks)}, as of commit {sequence}, {bytes_text(size)}, checked")
    return Exit.DONE


@json_option
@click.command
@click.argument("folder", metavar="BACKUP", type=click.Path(path_type=Path))
@click.option("--data-dir", metavar="DIR", type=click.Path(path_type=Path), required=True, help="To be made, or empty.")
def restore(*, folder: Path, data_dir: Path, as_json: bool) -> int:
    """Make a backup the data directory of a server.

    What came after the backup is not in it: tasks that ended since run again, under attempt numbers and fencing
    tokens above all that were given. Cut short, it is run again and begins anew.
    """
    from taskd.server.clock import SystemClock
    from taskd.server.datadir import open_data_dir
    from taskd.store import restoring
    from taskd.store.backup import read_manifest

    read_manifest(folder)  # before a directory is made
    opened = open_data_dir(data_dir, secrets.token_bytes)
    try:
        done = restoring.restore(
            folder,
            opened.root,
            new_lineage=secrets.token_bytes(LINEAGE_BYTES),
            now_ms=SystemClock().wall_ms(),
            progress=_progress,
        )
    finally:
        opened.close()
    manifest, tasks = done.manifest, done.report.counts
    if as_json:
        say_json(
            {
                "data_dir": str(opened.root),
                "lineage": done.report.lineage,
                "sequence": manifest.sequence,
                "tasks": dict(tasks),
                "keys": manifest.keys,
            }
        )
        return Exit.DONE
    say(f"{opened.root}: {_counted(tasks)}, as of commit {manifest.sequence}, checked")
    if manifest.keys:
        hint("the CA is the one of the backup: clients and agents connect as before")
    else:
        hint("the backup holds no CA: the server makes a new one, and clients and agents need it in their profiles")
    return Exit.DONE


def _of_running(client: Client, folder: Path, *, with_keys: bool) -> tuple[int, dict[str, int], int]:
    # A server of this machine means the folder that we see; another one's folders are its own.
    path = folder.absolute() if client.profile.data_dir else folder
    wanted = Backup(0, secrets.token_bytes(ID_BYTES), str(path), not with_keys)
    while True:
        view = client.call(wanted, BackupView)
        if view.stage == "failed":
            raise error_from_code(view.code, view.message)
        if view.stage == "done":
            return view.sequence, view.tasks, view.total_bytes
        if view.stage == "copying":
            _progress("copied bytes", view.copied_bytes)
        else:
            _progress("checking", view.total_bytes)


def _of_stopped(data_dir: Path, folder: Path, *, with_keys: bool) -> tuple[int, dict[str, int], int]:
    from taskd.server.clock import SystemClock
    from taskd.store.backup import Manifest, check_room, copy_store, open_draft, refused, store_files, weigh
    from taskd.store.fsck import fsck

    with store_of(data_dir) as store:
        if not store.is_dir():
            raise ConfigInvalid(f"{data_dir} holds no store yet: there is nothing to make a backup of")
        draft = open_draft(folder.absolute(), store.parent)
        try:
            size = weigh(store_files(store))
            check_room(draft.target, store.parent, size)
            copy_store(store, draft.store, lambda done: _progress("copied bytes", done))
            report = fsck(draft.store, progress=lambda done: _progress("checked tasks", done))
            _refuse_damaged(store, report)
            manifest = Manifest(
                software=f"taskd {__version__}",
                created_at_ms=SystemClock().wall_ms(),
                lineage=report.lineage,
                sequence=report.sequence,
                tasks=report.counts,
                keys=with_keys,
            )
            draft.complete(manifest, store.parent if with_keys else None)
        except OSError as error:
            draft.discard()
            raise refused(draft.folder, error) from None
        except BaseException:
            draft.discard()
            raise
    return report.sequence, report.counts, size


def _refuse_damaged(store: Path, report: "Report") -> None:
    from taskd.store import durable_mark

    if not report.is_clean or report.sequence < durable_mark.marked_sequence(store, bytes.fromhex(report.lineage)):
        raise StoreCorrupt(f"{store.parent} is damaged; `taskd fsck` and `taskd recover` tell more; no backup was made")


def _counted(tasks: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in sorted(tasks.items())) or "no tasks"


def _progress(what: str, done: int) -> None:
    if os.isatty(2):
        hint(f"{what}: {done:,}")
