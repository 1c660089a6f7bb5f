"""The campaigns by name."""

from typing import NamedTuple


class Campaign(NamedTuple):
    """How one is played.

    Attributes:
        module: Whose ``play`` plays a case; see ``campaigns.player``.
        limit_s: A case that takes longer hangs, which breaks a promise: many times what it takes on a quiet machine.
        is_timed: Its cases measure time, or have a machine of processes each: one after another.
    """

    module: str
    limit_s: float
    is_timed: bool = False


CAMPAIGNS = {
    "c1": Campaign("simulation.campaign", 120),
    "c2": Campaign("campaigns.states", 600),
    "c3": Campaign("campaigns.boundaries", 120),
    "c3-kill": Campaign("campaigns.kills", 600, is_timed=True),
    "c4": Campaign("campaigns.damage", 120),
    "c5": Campaign("campaigns.disk", 180, is_timed=True),
    "c6": Campaign("campaigns.clocks", 60),
    "c7": Campaign("campaigns.partitions", 240, is_timed=True),
    "c7-proxy": Campaign("campaigns.proxy", 180, is_timed=True),
    "c8": Campaign("campaigns.stops", 180, is_timed=True),
    "c12": Campaign("campaigns.backups", 300, is_timed=True),
    "c14": Campaign("campaigns.mutants", 1_200),
}
