"""Recent ids: which task ids are surely new, so that a submit asks the disk for few."""

RECENT_IDS = 65_536
"""Ids that a resend is looked up in before the disk is asked: a second or more of submits at full speed."""


class RecentIds:
    """Knows every stored task id above ``floor``, so that a new task needs no look at the disk.

    In two generations: when the younger is full the older is forgotten, and the floor rises to its highest.
    """

    def __init__(self, floor: bytes) -> None:
        self.floor = floor
        self._older: set[bytes] = set()
        self._younger: set[bytes] = set()

    def may_be_stored(self, ids: list[bytes]) -> set[bytes]:
        """Return those for which the disk must be asked; of a list, as that takes a third of asking for each."""
        if min(ids, default=b"") > self.floor and self._younger.isdisjoint(ids) and self._older.isdisjoint(ids):
            return set()
        return {i for i in ids if i <= self.floor or i in self._younger or i in self._older}

    def add(self, ids: list[bytes]) -> None:
        """Note new tasks."""
        self._younger.update(ids)
        if len(self._younger) >= RECENT_IDS:
            self.floor = max(self.floor, max(self._older, default=b""))
            self._older, self._younger = self._younger, set()
