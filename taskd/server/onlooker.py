"""The onlooker: what is kept of what happens, for those who look on: the journal of events, and the history.

The commit loop asks it in each turn; what it wants written goes with the turn's batch, so that it costs no flush of its
own, and is there after a crash as far as what it tells of.
"""

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from taskd.core.commands import Now
from taskd.core.events import Event, Noted
from taskd.core.records import Mutation
from taskd.core.working import Working
from taskd.server.bus import Bus
from taskd.server.chronicle import Chronicle
from taskd.server.history import History
from taskd.server.journal import BYTES_MAX, Journal
from taskd.server.tally import Tally
from taskd.server.webhooks import Webhooks
from taskd.store.interface import Store
from taskd_protocol.agent_messages import HostStats

if TYPE_CHECKING:
    from taskd.server.tracing import Tracer


class Watch:
    """See the module's docstring.

    Attributes:
        journal: Of what turns have told.
        history: Of how the server stood.
        bus: Tells who looks on; ``run`` it.
        webhooks: Post what happens; ``run`` them.
        chronicle: Has it in the log.
        tracer: Makes spans; None: nobody wants them.
    """

    def __init__(
        self, store: Store, working: Working, tally: Tally, rng: random.Random, hosts: Mapping[int, HostStats]
    ) -> None:
        self.journal = Journal(store, bytes_max=BYTES_MAX)
        self.history = History(store, working, tally, hosts)
        self.bus = Bus(self.journal, tally)
        self.chronicle = Chronicle(working)
        self.tracer: Tracer | None = None
        self._tally = tally
        self._kept: list[Mutation] = []
        self._noted: list[Noted] = []
        self.webhooks = Webhooks(self.bus, store, self._kept.extend, self._noted.append, rng)

    async def open(self, now: Now) -> None:
        """Read what is kept.

        Raises:
            StoreCorrupt: A record is not what was written.
        """
        await self.journal.open()
        await self.history.open(now)
        await self.webhooks.open()
        self._tally.letters = len(self.webhooks.letters)

    def look(self, events: Sequence[Event], now: Now) -> tuple[Sequence[Mutation], int]:
        """See ``loop.Onlooker``."""
        if self._noted:
            self._tally.note(self._noted, now.mono_ms)
            events = [*events, *self._noted]
            self._noted.clear()
        kept = self.journal.write(events, now)
        kept += self.history.look(now)
        if self._kept:
            kept += self._kept
            self._kept.clear()
            self._tally.letters = len(self.webhooks.letters)
        mark = self.journal.newest if events else 0
        if mark:
            self.chronicle.look(events, mark)
            if self.tracer is not None:
                self.tracer.look(events, now, mark)
        return kept, mark

    def release(self, mark: int, now: Now) -> None:
        """See ``loop.Onlooker``."""
        if self.tracer is not None:
            self.tracer.release(mark, now)
        self.chronicle.release(mark, now)
        self.journal.release(mark)
        self.bus.note()
