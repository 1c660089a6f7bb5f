"""Being asked to stop: TERM and HUP are taken as Ctrl-C, so that there is one way to stop."""

import signal
from types import FrameType


def take_as_ctrl_c(*signals: signal.Signals) -> None:
    """Have these raise KeyboardInterrupt in the main thread."""
    for number in signals:
        signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
