"""Backups of a running server: one at a time, beside everything else.

The copy is made from hard links to the store's files as they are at one moment, by a thread
that writes a piece at a time, and checked by another process. The loop goes on meanwhile.

Invariants:
- At most one backup is under way; whoever asks again under its id is told of it.
- Whatever ends one, nothing is left of what was not finished, except by a kill: that, the next one removes.
"""

import shutil
from collections.abc import Awaitable
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import structlog
import trio

from taskd.server.platform import Platform
from taskd.store.backup import Draft, Manifest, check_room, copy_store, open_draft, refused, store_files, weigh
from taskd_protocol.errors import BadRequest, StoreCorrupt, TaskdError
from taskd_protocol.house_messages import Backup, BackupView

log = structlog.get_logger("taskd.server")

LINKS: Final = "checkpoint"
"""In the data directory, while a backup is made of it."""

ANSWER_SECONDS: Final = 1.0
"""Who asks how far it is hears of the next stage, or after this."""


class Source(Protocol):
    """The store, as backups use it."""

    @property
    def lineage(self) -> bytes:
        """See ``Store``."""

    @property
    def durable_sequence(self) -> int:
        """See ``Store``."""

    def checkpoint(self, folder: Path) -> Awaitable[None]:
        """Link the files into a new folder, with all that was durable at the call.

        Raises:
            StoreFailed: The disk refuses.
        """


class _Job:
    """One backup."""

    def __init__(self, wanted: Backup) -> None:
        self.wanted = wanted
        self.stage = "copying"
        self.total_bytes = 0
        self.copied_bytes = 0
        self.manifest: Manifest | None = None
        self.failure: TaskdError | None = None
        self.changed = trio.Event()

    @property
    def ended(self) -> bool:
        return self.manifest is not None or self.failure is not None

    def enter(self, stage: str) -> None:
        self.stage = stage
        self.changed.set()
        self.changed = trio.Event()

    def note_copied(self, copied_bytes: int) -> None:
        """Note progress; from the copying thread."""
        self.copied_bytes = copied_bytes

    def view(self, request_id: int) -> BackupView:
        found, failure = self.manifest, self.failure
        return BackupView(
            request_id,
            self.stage,
            self.copied_bytes,
            self.total_bytes,
            0 if found is None else found.sequence,
            {} if found is None else found.tasks,
            "" if failure is None else failure.code,
            "" if failure is None else failure.message,
        )


class Backups:
    """Makes them."""

    def __init__(self, source: Source, root: Path, platform: Platform, software: str) -> None:
        """Prepare.

        Args:
            source: The running store.
            root: Its data directory.
            platform: The machine.
            software: Name and version, for whoever restores it.
        """
        self._source = source
        self._root = root
        self._platform = platform
        self._software = software
        self._job: _Job | None = None
        self._asked = trio.Event()

    async def tell(self, wanted: Backup) -> BackupView:
        """Begin a backup, or say how far the one of that id is: at its next stage, or after a second.

        Raises:
            BadRequest: Another one is under way.
        """
        job = self._job
        if job is None or job.wanted.id != wanted.id:
            if job is not None and not job.ended:
                raise BadRequest(f"a backup to {job.wanted.path} is being made; begin the next when it is done")
            job = self._job = _Job(wanted)
            self._asked.set()
        with trio.move_on_after(ANSWER_SECONDS):
            if not job.ended:
                await job.changed.wait()
        return job.view(wanted.request_id)

    async def run(self) -> None:
        """Make what is asked for, until cancelled."""
        await self._platform.offload(self._drop_links)  # of a server that was killed
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            assert self._job is not None
            await self._finish(self._job)

    async def _finish(self, job: _Job) -> None:
        log.info("backup_begins", path=job.wanted.path)
        try:
            job.manifest = await self._make(job)
        except TaskdError as why:
            job.failure = why
            job.enter("failed")
            log.warning("backup_failed", path=job.wanted.path, code=why.code, reason=why.message)
        else:
            job.enter("done")
            log.info("backup_done", path=job.wanted.path, sequence=job.manifest.sequence)

    async def _make(self, job: _Job) -> Manifest:
        offload, target = self._platform.offload, Path(job.wanted.path)
        draft = await offload(partial(open_draft, target, self._root))
        try:
            durable = self._source.durable_sequence
            await self._source.checkpoint(self._root / LINKS)
            await offload(partial(self._copy, job, draft))
            job.enter("checking")
            manifest = await self._check(job, draft, durable)
            keys_from = None if job.wanted.without_keys else self._root
            await offload(partial(draft.complete, manifest, keys_from))
        except BaseException:
            with trio.CancelScope(shield=True):
                await offload(draft.discard)
            raise
        finally:
            with trio.CancelScope(shield=True):
                await offload(self._drop_links)
        return manifest

    async def _check(self, job: _Job, draft: Draft, durable: int) -> Manifest:
        found = await self._platform.check_store(draft.store)
        if found.sequence < durable:
            raise StoreCorrupt(f"the copy ends at commit {found.sequence}, and {durable} was on disk; see to the disk")
        return Manifest(
            software=self._software,
            created_at_ms=self._platform.clock.wall_ms(),
            lineage=self._source.lineage.hex(),
            sequence=found.sequence,
            tasks=found.tasks,
            keys=not job.wanted.without_keys,
        )

    def _copy(self, job: _Job, draft: Draft) -> None:
        links = self._root / LINKS
        try:
            job.total_bytes = weigh(store_files(links))
            check_room(draft.target, self._root, job.total_bytes)
            copy_store(links, draft.store, job.note_copied)
        except OSError as error:
            raise refused(draft.folder, error) from None
        self._drop_links()

    def _drop_links(self) -> None:
        shutil.rmtree(self._root / LINKS, ignore_errors=True)
