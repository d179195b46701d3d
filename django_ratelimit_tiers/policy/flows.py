"""Logic that pauses for input and output, so that it is written once for both colours.

A flow is a generator that yields pauses and is sent their results; `drive` runs it synchronously
and `adrive` on an event loop. A shortcut is the same for what nearly every request takes, and what
is done has its result without a pause.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from inspect import iscoroutine
from types import GeneratorType
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async

R = TypeVar("R")


class Pause(Protocol):
    """What a flow waits for: the same input or output for threads and for event loops."""

    def run(self) -> Any: ...

    def arun(self) -> Awaitable[Any]: ...


Flow = Generator[Pause, Any, R]


class Shortcut(Generic[R]):
    """A flow that is one pause and mostly ends with it, so that it takes no generator.

    It runs as a pause does. Then it concludes, from the result or the error of that, how the flow
    ends, or how it goes on.
    """

    __slots__ = ()

    def run(self) -> Any:
        raise NotImplementedError

    async def arun(self) -> Any:
        raise NotImplementedError

    def conclude(self, answer: Any, error: Exception | None) -> R | Flow[R]:
        raise NotImplementedError

    def __iter__(self) -> Flow[R]:
        """Let a generator go this way, too (`yield from`)."""
        answer, error = None, None
        try:
            answer = yield self
        except Exception as failure:
            error = failure
        end = self.conclude(answer, error)
        result: R = (yield from end) if isinstance(end, GeneratorType) else end  # type: ignore[assignment]
        return result


class Step:
    """A pause made of two functions."""

    __slots__ = ("arun", "run")

    def __init__(self, run: Callable[[], Any], arun: Callable[[], Awaitable[Any]]) -> None:
        self.run, self.arun = run, arun


def in_thread(run: Callable[[], Any]) -> Step:
    """Return the step that calls a function which blocks, such as one that asks the database."""
    return Step(run, lambda: sync_to_async(run)())


def call(function: Callable[..., Any], *arguments: Any) -> Step:
    """Return the step that calls a function of the site's own, asynchronous or not.

    Not each shows what it is: one that is decorated, or an object, may return a coroutine, too.
    """

    def run() -> Any:
        result = function(*arguments)
        return async_to_sync(_awaited)(result) if iscoroutine(result) else result

    async def arun() -> Any:
        if iscoroutinefunction(function):
            return await function(*arguments)
        result = await sync_to_async(lambda: function(*arguments))()  # it need not be a function
        return await result if iscoroutine(result) else result

    return Step(run, arun)


async def _awaited(coroutine: Coroutine[Any, Any, R]) -> R:
    return await coroutine


class Done(Generic[R]):
    """A flow that has its result already and never pauses."""

    __slots__ = ("result",)

    def __init__(self, result: R) -> None:
        self.result = result

    def __iter__(self) -> Flow[R]:
        """Let a generator go this way, too (`yield from`)."""
        return self.result
        yield  # what makes this function a generator


AnyFlow: TypeAlias = Flow[R] | Shortcut[R] | Done[R]
"""Whatever `drive` and `adrive` run, and another flow can yield from."""


def drive(flow: AnyFlow[R]) -> R:
    """Run a flow in this thread and return its result."""
    error: Exception | None = None
    answer: Any = None
    if isinstance(flow, Done):
        return flow.result
    if isinstance(flow, Shortcut):
        try:
            answer = flow.run()
        except Exception as failure:
            error = failure
        end = flow.conclude(answer, error)
        if not isinstance(end, GeneratorType):
            return end  # type: ignore[return-value]
        flow, answer, error = end, None, None
    while True:
        try:
            step = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as stop:
            result: R = stop.value
            return result
        try:
            error, answer = None, step.run()
        except Exception as failure:
            error = failure


async def adrive(flow: AnyFlow[R]) -> R:
    """Run a flow on the event loop and return its result."""
    error: Exception | None = None
    answer: Any = None
    if isinstance(flow, Done):
        return flow.result
    if isinstance(flow, Shortcut):
        try:
            answer = await flow.arun()
        except Exception as failure:
            error = failure
        end = flow.conclude(answer, error)
        if not isinstance(end, GeneratorType):
            return end  # type: ignore[return-value]
        flow, answer, error = end, None, None
    while True:
        try:
            step = flow.send(answer) if error is None else flow.throw(error)
        except StopIteration as stop:
            result: R = stop.value
            return result
        try:
            error, answer = None, await step.arun()
        except Exception as failure:
            error = failure
