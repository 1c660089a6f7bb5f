"""Waiting for a task's end while its progress is shown, on the line where the cursor is."""

import sys
from typing import Final

from taskd.cli.endings import HINT_AFTER_S, tell_why_it_waits
from taskd.cli.terminal import one_line
from taskd.client.client import Client
from taskd.client.clock import mono_s
from taskd_protocol.errors import TimedOut
from taskd_protocol.messages import Follow
from taskd_protocol.streams import PROGRESS, ProgressLine, decode_line

BAR_CHARS: Final = 24
MESSAGE_CHARS: Final = 48


def show_progress(client: Client, task_id: bytes, timeout_s: float | None) -> None:
    """Show how far a task is until it has ended; if it says nothing at first, tell what it waits for.

    Args:
        client: To its server.
        task_id: 16 bytes.
        timeout_s: Return then at the latest; None: as long as it takes.
    """
    until_s = None if timeout_s is None else mono_s() + timeout_s
    first_s = HINT_AFTER_S if timeout_s is None else min(HINT_AFTER_S, timeout_s)
    try:
        _show(client, task_id, first_s)
    except TimedOut:
        tell_why_it_waits(client, task_id)
        left_s = None if until_s is None else max(0.0, until_s - mono_s())
        try:
            _show(client, task_id, left_s)
        except TimedOut:
            return


def bar(line: ProgressLine) -> str:
    """Return how far it is, as one short line."""
    share = min(max(line.done / line.total, 0.0), 1.0) if line.total > 0 else 0.0
    filled = round(share * BAR_CHARS)
    count = "" if line.total == 1 else f" {line.done:g}/{line.total:g}"
    message = " ".join(line.message.split())[:MESSAGE_CHARS]
    return f"[{'#' * filled}{'.' * (BAR_CHARS - filled)}] {share:4.0%}{count} {message}".rstrip()


def _show(client: Client, task_id: bytes, silence_s: float | None) -> None:
    shown = False
    try:
        for entry in client.read(Follow(0, task_id, streams=[PROGRESS]), silence_s):
            line = decode_line(PROGRESS, entry.data.rstrip(b"\n").rpartition(b"\n")[2])
            if isinstance(line, ProgressLine):
                shown = True  # before it is: Ctrl-C comes at any time, and what is said then has a line of its own
                sys.stderr.write(f"\r{one_line(bar(line))}\x1b[K")
                sys.stderr.flush()
    finally:
        if shown:
            sys.stderr.write("\n")
