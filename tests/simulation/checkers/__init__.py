"""One promise a file. To add one: a file here, a class of it in ``every``."""

from typing import TYPE_CHECKING

from simulation.checkers.checker import Checker
from simulation.checkers.l01_moves import Moves
from simulation.checkers.l02_agents import Agents
from simulation.checkers.l02_regrants import Regrants
from simulation.checkers.s01_acknowledged import Acknowledged
from simulation.checkers.s02_invented import Invented
from simulation.checkers.s03_counted_once import CountedOnce
from simulation.checkers.s04_progress import Progress
from simulation.checkers.s05_drained import Drained
from simulation.checkers.s05_leases import Leases
from simulation.checkers.s07_keys import Keys
from simulation.checkers.s07_unique import Only
from simulation.checkers.s08_families import Families
from simulation.checkers.s08_graphs import Graphs
from simulation.checkers.s08_signals import Signals
from simulation.checkers.s09_schedules import Schedules
from simulation.checkers.s10_terminal import Terminal
from simulation.checkers.s11_durable import Durable
from simulation.checkers.s13_records import Records
from simulation.checkers.s15_failed_store import FailedStore
from simulation.checkers.s17_budgets import Budgets
from simulation.checkers.s17_once import Once
from simulation.checkers.s18_bodies import Bodies
from simulation.checkers.s19_placed import Placed
from simulation.checkers.s20_limits import Limits
from simulation.checkers.s21_told import Told

if TYPE_CHECKING:
    from simulation.world import World


def every(world: "World") -> list[Checker]:
    """Make one of each."""
    kinds = (
        Acknowledged,
        Invented,
        CountedOnce,
        Progress,
        Leases,
        Drained,
        Keys,
        Only,
        Graphs,
        Families,
        Signals,
        Schedules,
        Terminal,
        Durable,
        Records,
        FailedStore,
        Budgets,
        Once,
        Bodies,
        Placed,
        Limits,
        Told,
        Moves,
        Agents,
        Regrants,
    )
    return [kind(world) for kind in kinds]
