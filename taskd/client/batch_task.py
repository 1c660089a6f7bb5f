"""Tasks whose function is given many of them in one call: a list in, a list out, and each a task by itself."""

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar, cast, overload

from taskd.client.batching import Batching
from taskd.client.task import Task

if TYPE_CHECKING:
    from taskd.client.app import App
    from taskd.client.limits import Bound
    from taskd.client.options import Options
    from taskd.client.schedule import Declared

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class BatchTask(Task[[T], R], Generic[T, R]):
    """A function of a list, each item of which is submitted by itself. Calling it is a plain call, with a list."""

    def __call__(self, items: list[T]) -> Sequence[R | Exception]:
        """Call the function, here and now."""
        return cast("Sequence[R | Exception]", self.function(items))


class AsyncBatchTask(Task[[T], R], Generic[T, R]):
    """A ``BatchTask`` that is an ``async def``."""

    IS_ASYNC = True

    async def __call__(self, items: list[T]) -> Sequence[R | Exception]:
        """Call the function, here and now; await what it returns."""
        return await cast("Coroutine[object, object, Sequence[R | Exception]]", self.function(items))


class BatchDecorator:
    """Declares the function that it is put before; made by ``App.task`` with ``batch=``."""

    def __init__(
        self,
        app: "App",
        name: str | None,
        options: "Options",
        schedules: "Declared",
        batching: Batching,
        *,
        bound: "Bound",
    ) -> None:
        self._bound = bound
        self._app = app
        self._name = name
        self._options = options
        self._schedules = schedules
        self._batching = batching

    @overload
    def __call__(
        self, function: Callable[[list[T]], Coroutine[object, object, Sequence[R | Exception]]], /
    ) -> AsyncBatchTask[T, R]: ...
    @overload
    def __call__(self, function: Callable[[list[T]], Sequence[R | Exception]], /) -> BatchTask[T, R]: ...
    def __call__(self, function: Callable[P, object]) -> object:
        """Declare the function."""
        return self._app.declare(
            function, self._name, self._options, self._schedules, self._batching, bound=self._bound
        )
