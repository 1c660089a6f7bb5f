"""What the doctor's checks give."""

from dataclasses import dataclass
from typing import Literal

from taskd_protocol.errors import TaskdError

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report."""

    name: str
    status: Status
    message: str
    advice: str = ""
    error: TaskdError | None = None
    """Of a failure that has one: it tells the exit code."""
