"""Errors: every expected failure has a name, a stable dotted code and a retryable flag.

Peers compare codes only. A message is one line for people and says what to do.
Each class is one code; ``error_from_code`` turns what came over the wire back
into the class, and a code from a newer peer into a plain ``TaskdError``.
"""

from typing import ClassVar


class TaskdError(Exception):
    """Base of all expected failures.

    Attributes:
        code: Stable dotted word, compared by peers and scripts.
        retryable: The same request may succeed later, unchanged.
        retry_after_ms: How long to wait before that, 0 when the peer did not say.
    """

    code: str = "error"
    retryable: bool = False

    def __init__(self, message: str, *, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_ms = retry_after_ms


_BY_CODE: dict[str, type[TaskdError]] = {}


class _Coded(TaskdError):
    """A failure with its own code; subclasses are entered into the table of codes."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        assert cls.code not in _BY_CODE, cls.code
        _BY_CODE[cls.code] = cls


# -- the connection ---------------------------------------------------------------------


class ProtocolViolation(_Coded):
    """The bytes are no frame, or the frame no message: the connection is closed after it."""

    code = "protocol.violation"


class UnknownKind(_Coded):
    """A message type that this side does not know."""

    code = "protocol.unknown_kind"


class FrameTooLarge(_Coded):
    """A frame, or a message made of chunks, claims more bytes than the limit."""

    code = "protocol.too_large"


class UnexpectedMessage(_Coded):
    """A known message at a moment, or from a role, that does not allow it."""

    code = "protocol.unexpected"


class VersionUnsupported(_Coded):
    """The two sides have no protocol version in common; both ranges are named."""

    code = "protocol.version"


class HandshakeTimedOut(_Coded):
    """No complete HELLO within the time allowed before authentication."""

    code = "protocol.handshake_timeout"


class ServerStopping(_Coded):
    """The server is going down in good order; reconnect, its successor answers."""

    code = "server.stopping"
    retryable = True


class ServerBusy(_Coded):
    """Refused before anything moved, because a bound is reached; try again after ``retry_after_ms``."""

    code = "server.busy"
    retryable = True


class ServerRolledBack(_Coded):
    """The peer has seen a newer commit than this server holds: the data directory was rolled back."""

    code = "server.rolled_back"


class ConnectionLost(_Coded):
    """The connection broke, or the other side fell silent."""

    code = "connection.lost"
    retryable = True


class CannotConnect(_Coded):
    """Nobody answers at the address, or it is no taskd."""

    code = "connection.refused"
    retryable = True


class CertificateRefused(_Coded):
    """The server's certificate is not signed by the pinned CA, or not for this name."""

    code = "connection.certificate"


class ServerTooOld(_Coded):
    """The server is of a version that would take the request and leave out a part of it; nothing was sent."""

    code = "server.too_old"


class TimedOut(_Coded):
    """The caller's own time limit passed; the request may still take effect."""

    code = "timeout"


# -- who may do what --------------------------------------------------------------------


class AuthRefused(_Coded):
    """The token is unknown, malformed, expired or revoked: all four look alike."""

    code = "auth.refused"


class RoleRefused(_Coded):
    """The token is good, and its role does not allow this."""

    code = "auth.role"


class InvitationRefused(_Coded):
    """The join code is unknown, used, or older than its ten minutes."""

    code = "auth.invitation"


class AgentDuplicate(_Coded):
    """A live agent of that name, from another boot, is connected."""

    code = "agent.duplicate"


# -- requests ---------------------------------------------------------------------------


class BadRequest(_Coded):
    """A field is out of its range; the message names it."""

    code = "request.invalid"


class PayloadTooLarge(_Coded):
    """A payload or result exceeds the limit that WELCOME announced."""

    code = "payload.too_large"


class PayloadUnpackable(_Coded):
    """A value that the payload codec cannot carry; the message names the argument."""

    code = "payload.unpackable"


class SubmitConflict(_Coded):
    """The id, or the key, belongs to a task with other content."""

    code = "submit.conflict"


class UniqueHeld(_Coded):
    """The task cannot go back in line: another one does its work, and it was to be the only one."""

    code = "unique.held"


class SubmitTooNew(_Coded):
    """The id lies ahead of the server's clock, which was put back: ask it for the time, and make a new one."""

    code = "submit.too_new"


class SubmitTooOld(_Coded):
    """The id is older than what the server keeps, so it cannot tell a resend from a new task."""

    code = "submit.too_old"


class TaskUnknown(_Coded):
    """No task of that id is stored."""

    code = "task.unknown"


class ResultGone(_Coded):
    """The task is known to have ended, and its result was removed by the retention rule."""

    code = "result.gone"


class QueueDraining(_Coded):
    """The queue takes no new tasks until it is resumed."""

    code = "queue.draining"


class AgentUnknown(_Coded):
    """No agent of that name is there."""

    code = "agent.unknown"


class WorkflowInvalid(_Coded):
    """A workflow is no graph that can run: the node is named, and what is wrong with it."""

    code = "workflow.invalid"


class WorkflowUnknown(_Coded):
    """No workflow of that id is stored, or it has no such node."""

    code = "workflow.unknown"


class WorkflowEnded(_Coded):
    """The workflow has ended, or stands where that cannot be done to it."""

    code = "workflow.ended"


class JobLimit(_Coded):
    """As many bulk jobs are under way as may be; start this one when one of them has ended."""

    code = "job.limit"


class ScheduleUnknown(_Coded):
    """No schedule of that name is kept."""

    code = "schedule.unknown"


class ScheduleExists(_Coded):
    """A schedule of that name is there, and is not this one's to change."""

    code = "schedule.exists"


class LimitUnknown(_Coded):
    """No limit of that name is kept."""

    code = "limit.unknown"


class LimitsFull(_Coded):
    """As many limits are kept as the server keeps."""

    code = "limit.full"


class ScheduleLimit(_Coded):
    """As many schedules are kept as may be; remove some."""

    code = "schedule.limit"


class LeaseStale(_Coded):
    """The report's (task, attempt, token) is not what is stored: it changes nothing."""

    code = "lease.stale"


class TokenUnknown(_Coded):
    """No token of that key id."""

    code = "token.unknown"


# -- disk and configuration ---------------------------------------------------------------


class StoreCorrupt(_Coded):
    """The store does not hold what was written; it is refused rather than served shorter."""

    code = "store.corrupt"


class StoreFailed(_Coded):
    """The disk refused a write; what happened to it is unknown, so the process ends."""

    code = "store.failed"


class StoreStalled(_Coded):
    """The store asks to wait before the next write; nothing was written."""

    code = "store.stalled"
    retryable = True


class StoreTooNew(_Coded):
    """The data directory was written by a newer taskd."""

    code = "store.too_new"


class StoreTooOld(_Coded):
    """The data directory is of an older taskd's format; a server that starts on it brings it to today's."""

    code = "store.too_old"


class DataDirInUse(_Coded):
    """Another process has the data directory open."""

    code = "store.in_use"


class DiskFull(_Coded):
    """Less space is left than the server keeps for finishing what it has."""

    code = "server.disk_full"
    retryable = True


class ConfigInvalid(_Coded):
    """A flag, a variable or a line of the configuration is wrong; the message names it."""

    code = "config.invalid"


class AddressInUse(_Coded):
    """Another process listens on that port."""

    code = "config.address_in_use"


class AddressInsecure(_Coded):
    """Plain TCP was asked for on an address that others can reach."""

    code = "config.address_insecure"


# -- how an attempt failed: codes of a task's error, never of a request --------------------


class TaskCodes:
    """Codes found in a task's ``error.code``."""

    RAISED: ClassVar[str] = "task.raised"
    """The function raised; type, message and traceback are its own."""

    NAME_UNKNOWN: ClassVar[str] = "task.name_unknown"
    """The worker does not have the function that the agent offered."""

    ARGUMENTS_UNREADABLE: ClassVar[str] = "task.arguments_unreadable"
    """The payload cannot be unpacked in the worker."""

    RESULT_UNPACKABLE: ClassVar[str] = "task.result_unpackable"
    """The function returned what the payload codec cannot carry."""

    RESULT_TOO_LARGE: ClassVar[str] = "task.result_too_large"
    """The packed result exceeds the payload limit."""

    BATCH_RESULTS: ClassVar[str] = "task.batch_results"
    """The function, given many tasks in one call, did not return a list of as many results."""

    WORKER_EXITED: ClassVar[str] = "worker.exited"
    """The worker process ended by itself while it ran the task; the exit code is told."""

    WORKER_KILLED: ClassVar[str] = "worker.killed"
    """A signal ended the worker process; it is named."""

    WORKER_OUT_OF_MEMORY: ClassVar[str] = "worker.out_of_memory"
    """The kernel killed the worker process for memory."""

    COMMAND_FAILED: ClassVar[str] = "command.failed"
    """The command's exit code was not 0; it is told."""

    COMMAND_NOT_STARTED: ClassVar[str] = "command.not_started"
    """The command could not be started: not found, or not executable."""

    TIMED_OUT: ClassVar[str] = "task.timed_out"
    """The attempt ran for longer than its timeout, or its soft timeout, allows."""

    STALLED: ClassVar[str] = "task.stalled"
    """The attempt gave no heartbeat for longer than its limit allows."""

    DEADLINE: ClassVar[str] = "task.deadline"
    """The task had not ended by its deadline; no further attempt is made."""

    EXPIRED: ClassVar[str] = "task.expired"
    """The task's time to live passed before its first attempt."""

    CANCELLED: ClassVar[str] = "task.cancelled"
    """A person or program cancelled it."""

    WORKER_LOST: ClassVar[str] = "worker.lost"
    """The agent fell silent, or was stopped, while it ran the task."""

    MAYBE_RAN: ClassVar[str] = "task.maybe_ran"
    """The task may run at most once; it started, or may have, and did not succeed."""

    PENDING: ClassVar[str] = "task.pending"
    """Of a task that another one has spawned: it has not ended."""

    SPAWN_CHANGED: ClassVar[str] = "task.spawn_changed"
    """The task spawned something else than in the attempt before: what it spawns must follow from its arguments."""

    UPSTREAM_FAILED: ClassVar[str] = "workflow.upstream_failed"
    """A node was skipped: one that it waited for did not succeed."""

    RULED_OUT: ClassVar[str] = "workflow.ruled_out"
    """A node was skipped: a branch was not taken, or its trigger rule can no longer hold."""

    STOPPED: ClassVar[str] = "workflow.stopped"
    """A node was skipped: its workflow was cancelled, or failed fast, before its turn came."""

    NOT_A_LIST: ClassVar[str] = "workflow.not_a_list"
    """A node that maps was given something else than a list, or one that is too long."""

    SIGNAL_LATE: ClassVar[str] = "workflow.signal_late"
    """The signal that a node waited for did not come in time."""


def error_codes() -> dict[str, type[TaskdError]]:
    """Return every code with its class, for the protocol document's test."""
    return dict(_BY_CODE)


def error_from_code(code: str, message: str, *, retryable: bool = False, retry_after_ms: int = 0) -> TaskdError:
    """Rebuild the error that a peer told; an unknown code keeps its flags on a plain ``TaskdError``."""
    known = _BY_CODE.get(code)
    if known is not None:
        return known(message, retry_after_ms=retry_after_ms)
    error = TaskdError(message, retry_after_ms=retry_after_ms)
    error.code = code
    error.retryable = retryable
    return error
