"""Backups of a server under load, each restored: whole, and with all that was acknowledged before it was begun.

Now and then the server is killed while one is made; what that leaves passes for no backup.
"""

import random
import shutil
import sys
from pathlib import Path

import trio

from campaigns.report import Found
from crash.campaign import CLIENT, JOBS, TASKD, Campaign
from harness.waiting import until
from taskd.store import engine
from taskd.store.anew import ATTEMPTS_JUMP
from taskd.store.stored_tasks import read_tasks

RESTORES = 2
"""In the life of one server."""

TIDY_SECONDS = 100.0
PAUSE_SECONDS = 0.5
"""The longest that the load goes on between two backups."""

KILLED = 0.3
"""So often the server is killed while a backup is made, beside the first time."""


async def back_up_again_and_again(rng: random.Random, home: Path, found: Found) -> None:
    """Fsck finds nothing in any, and no acknowledged task is missing."""
    campaign = Campaign(home=home, rng=rng)
    try:
        async with trio.open_nursery() as nursery:
            (home / "jobs.py").write_text(JOBS)
            (home / "client.py").write_text(CLIENT)
            await campaign.start_server()
            await campaign.serving()
            await campaign.start([TASKD, "agent", "jobs", "--name", "real", "--processes", "1"], "agent.log")
            client = await campaign.start([sys.executable, "client.py", str(home), "0"], "client-0.log")
            played = campaign.play(nursery)
            await until(lambda: campaign.outcomes() and campaign.ledger.outcomes, TIDY_SECONDS)
            for number in range(RESTORES):
                await trio.sleep(rng.uniform(0, PAUSE_SECONDS))
                if number == 0 or rng.random() < KILLED:
                    found.fault("killed while a backup is made")
                    await be_killed_while_backing_up(campaign, home / f"killed-{number}", found)
                await back_up_and_restore(campaign, home / f"backup-{number}", found)
            campaign.calm = True
            (home / "stop").touch()
            with trio.fail_after(TIDY_SECONDS):
                assert await client.wait() == 0, (home / "client-0.log").read_text()
            await until(lambda: not (played.unanswered or played.waiting), TIDY_SECONDS)
            nursery.cancel_scope.cancel()
    finally:
        await campaign.close()


async def back_up_and_restore(campaign: Campaign, backup: Path, found: Found) -> None:
    """Make a backup under load; compare what a restore makes of it with what was acknowledged before."""
    accepted = set(campaign.accepted())
    restored = backup.with_name(f"{backup.name}-restored")
    for words in (
        ["backup", str(backup)],
        ["restore", str(backup), "--data-dir", str(restored)],
        ["fsck", "--data-dir", str(restored)],
    ):
        process = await campaign.start([TASKD, *words], f"{backup.name}.log")
        with trio.fail_after(TIDY_SECONDS):
            assert await process.wait() == 0, (campaign.home / f"{backup.name}.log").read_text()
    database = engine.open_database(restored / "store")
    tasks = {task.id: task for task in read_tasks(database)}
    database.close()
    assert accepted
    assert accepted <= tasks.keys()
    unfinished = [task for task in tasks.values() if not task.has_ended]
    assert all((task.lease or task.last) is not None for task in unfinished)
    assert all(task.lease.attempt > ATTEMPTS_JUMP for task in unfinished if task.lease is not None)
    found.ops += 1
    found.reach("restored while tasks ran", int(any(task.lease is not None for task in unfinished)))
    shutil.rmtree(restored)


async def be_killed_while_backing_up(campaign: Campaign, backup: Path, found: Found) -> None:
    """Kill the server at any moment of a backup; it serves again, and what it left is no backup."""
    making = await campaign.start([TASKD, "backup", str(backup)], f"{backup.name}.log")
    partial = backup.with_name(f"{backup.name}.partial")
    await until(lambda: partial.exists() or backup.exists(), TIDY_SECONDS)
    await trio.sleep(campaign.rng.uniform(0, 0.2))
    await campaign.kill_server()
    making.kill()
    await making.wait()
    is_whole = await trio.Path(backup).exists()
    found.reach("a part of a backup refused", int(not is_whole))
    if not is_whole:
        process = await campaign.start([TASKD, "restore", str(partial), "--data-dir", "never"], f"{backup.name}.log")
        assert await process.wait() == 2
        assert not (campaign.home / "never").exists()
    await campaign.start_server()
    await campaign.serving()


def play(case: int, home: Path, found: Found) -> None:
    """Make backups at moments chosen by the number."""
    trio.run(back_up_again_and_again, random.Random(20261125 + case), home, found)
