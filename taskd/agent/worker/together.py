"""Together: many leases of one name in one call of a function that takes a list.

Each keeps its own arguments, result and failure: what cannot be unpacked fails alone, and is not in the list. What the
function raises fails all that are; an exception among its results that one.
"""

from collections.abc import Sequence
from typing import TypeAlias

from taskd.agent import wire
from taskd.agent.worker import calls
from taskd.client.batching import BatchMismatch, results_of
from taskd.client.context import Port, TaskContext, running_together
from taskd_protocol.errors import TaskCodes
from taskd_protocol.task import Failure, Grant, TaskSpec

End: TypeAlias = bytes | Failure | calls.Thrown


class Call:
    """One call.

    Attributes:
        ends: How each lease has ended, by token.
        items: What the function is given.
    """

    def __init__(self, functions: calls.Functions, grants: Sequence[Grant], port: Port | None = None) -> None:
        """Read the arguments, in the context of now, which is to be the call's own.

        Args:
            functions: By task name.
            grants: Of one name.
            port: Of the call's own; None: the process's.
        """
        self.ends: dict[int, End] = {}
        self.items: list[object] = []
        self._grants: list[Grant] = []
        for grant in grants:
            found = _item(grant.spec) if grant.spec.name in functions else calls.unknown(grant.spec.name)
            if isinstance(found, Failure):
                self.ends[grant.token] = found
            else:
                self.items += found
                self._grants.append(grant)
        running_together.set([TaskContext(grant, port) for grant in self._grants])

    def returned(self, returned: object, result_bytes_max: int) -> None:
        """Take in what the function returned."""
        try:
            results = results_of(returned, len(self.items))
        except BatchMismatch as error:
            self.raised(error)
            return
        for grant, result in zip(self._grants, results, strict=True):
            self.ends[grant.token] = (
                calls.raised(result, grant.spec.retry)
                if isinstance(result, BaseException)
                else calls.pack_result(result, result_bytes_max)
            )

    def raised(self, error: BaseException) -> None:
        """Take in what the function raised."""
        for grant in self._grants:
            self.ends[grant.token] = (
                Failure(TaskCodes.BATCH_RESULTS, calls.line(str(error)))
                if isinstance(error, BatchMismatch)
                else calls.raised(error, grant.spec.retry)
            )


def run(functions: calls.Functions, grants: Sequence[Grant], result_bytes_max: int) -> dict[int, End]:
    """Run a call of a plain function, in the context of now."""
    call = Call(functions, grants)
    if call.items:
        try:
            call.returned(functions[grants[0].spec.name](call.items), result_bytes_max)
        except BaseException as error:  # noqa: BLE001 - sys.exit() in a task ends the task, not its worker
            call.raised(error)
    return call.ends


def told(token: int, end: End, started_at_ms: int, run_us: float, peak_bytes: int = 0) -> wire.Returned | wire.Raised:
    """Return what to tell of one of them; ``run_us`` is its share of the call."""
    if isinstance(end, bytes):
        return wire.Returned(token, end, started_at_ms, run_us, peak_bytes)
    return calls.bad_end(token, end, started_at_ms, run_us)


def _item(spec: TaskSpec) -> list[object] | Failure:
    """Return the one argument of a task."""
    arguments = calls.read_arguments(spec)
    if isinstance(arguments, Failure):
        return arguments
    values = [*arguments[0], *arguments[1].values()]
    if len(values) != 1:
        text = f"a task with batch= takes one argument, its item of the list; it was submitted with {len(values)}"
        return Failure(TaskCodes.ARGUMENTS_UNREADABLE, text)
    return values
