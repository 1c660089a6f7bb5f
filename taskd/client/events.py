"""What a session tells of: to be passed on, in order, by whoever moves its bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from taskd.client.promise import Request
from taskd_protocol.errors import TaskdError
from taskd_protocol.task import Outcome


@dataclass(frozen=True, slots=True)
class Answered:
    """A request has its reply or its error; a following one may have a page instead."""

    request: Request


@dataclass(frozen=True, slots=True)
class Ended:
    """Tasks that were waited for have ended."""

    outcomes: Sequence[Outcome]


@dataclass(frozen=True, slots=True)
class Abandoned:
    """Nothing is waited for any longer: the server will not have us."""

    error: TaskdError


@dataclass(frozen=True, slots=True)
class HangUp:
    """The connection is over: close it. Connect again when ``wants_connection`` says so."""

    error: TaskdError


Event = Answered | Ended | Abandoned | HangUp
