"""The campaigns by name."""

from campaigns import boundaries, clocks, damage, disk, kills, mutants, partitions, proxy, states, stops
from campaigns.running import Case
from simulation import campaign as simulation

CAMPAIGNS: dict[str, Case] = {
    "c1": simulation.play,
    "c2": states.play,
    "c3": boundaries.play,
    "c3-kill": kills.play,
    "c4": damage.play,
    "c5": disk.play,
    "c6": clocks.play,
    "c7": partitions.play,
    "c7-proxy": proxy.play,
    "c8": stops.play,
    "c14": mutants.play,
}
