"""A world of the core that is looked at after each turn, not after each command: a campaign has many lives to play."""

import contextlib
from collections.abc import Callable

from harness.world import REFUSALS, World


class LightWorld(World):
    """The same world; that a refused command changes nothing is proven elsewhere."""

    def _checked(self, act: Callable[[], None]) -> None:
        with contextlib.suppress(*REFUSALS):
            act()
