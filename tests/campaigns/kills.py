"""``kill -9`` of the server, fifty times under load: what it acknowledged is there, and every end is told once."""

import random
import sys
from pathlib import Path

import trio

from campaigns.report import Found
from crash.campaign import CLIENT, JOBS, TASKD, Campaign
from harness.waiting import until

KILLS = 50
LIFE_SECONDS = 0.9
"""The longest that the server lives after it has said that it serves."""

KILLED_AT_START = 0.15
"""So often it is killed while it starts."""

CLIENTS = 1
TIDY_SECONDS = 100.0


async def kill_again_and_again(rng: random.Random, home: Path, found: Found) -> None:
    """Acknowledged minus known is empty, every task ended once, and no outcome that was told has changed."""
    campaign = Campaign(home=home, rng=rng)
    try:
        async with trio.open_nursery() as nursery:
            await be_killed(campaign, nursery)
            standings = await campaign.standings()
            campaign.check(standings)
            nursery.cancel_scope.cancel()
        assert await campaign.stop_server() == 0
        assert await (await campaign.start([TASKD, "fsck", "--data-dir", "data"], "fsck.log")).wait() == 0
    finally:
        await campaign.close()
    found.ops += len(standings)
    found.fault("kill -9", campaign.kills)
    found.reach("recorded", len(campaign.ledger.recorded))
    found.reach("run again", sum([standing is not None and standing.attempt > 1 for standing in standings.values()]))


async def be_killed(campaign: Campaign, nursery: trio.Nursery) -> None:
    """Put a server under load, kill it again and again, and let what is left of the load end."""
    (campaign.home / "jobs.py").write_text(JOBS)
    (campaign.home / "client.py").write_text(CLIENT)
    await campaign.start_server()
    await campaign.serving()
    await campaign.start([TASKD, "agent", "jobs", "--name", "real", "--processes", "1"], "agent.log")
    clients = [
        await campaign.start([sys.executable, "client.py", str(campaign.home), str(number)], f"client-{number}.log")
        for number in range(CLIENTS)
    ]
    played = campaign.play(nursery)
    # A client that has never been welcomed gives up at once, and rightly so.
    await until(lambda: len(campaign.outcomes()) >= CLIENTS and campaign.ledger.outcomes, TIDY_SECONDS)
    for _ in range(KILLS):
        await trio.sleep(campaign.rng.uniform(0, LIFE_SECONDS))
        await campaign.kill_server()
        await campaign.start_server()
        if campaign.kills == KILLS or campaign.rng.random() > KILLED_AT_START:
            await campaign.serving()
    campaign.calm = True
    (campaign.home / "stop").touch()
    for number, client in enumerate(clients):
        with trio.fail_after(TIDY_SECONDS):
            assert await client.wait() == 0, (campaign.home / f"client-{number}.log").read_text()
    await until(lambda: not (played.unanswered or played.waiting), TIDY_SECONDS)


def play(case: int, home: Path, found: Found) -> None:
    """Kill a server fifty times at moments chosen by the number."""
    trio.run(kill_again_and_again, random.Random(20261121 + case), home, found)
