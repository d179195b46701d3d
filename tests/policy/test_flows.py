"""Flows give the same to threads and to event loops, and block no loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

from django_ratelimit_tiers.policy.flows import Done, Flow, Shortcut, adrive, call, drive


def place(word: str) -> tuple[str, int]:
    """Return a word and where it was heard."""
    return word, threading.get_ident()


async def aplace(word: str) -> tuple[str, int]:
    """Do what `place` does, on an event loop."""
    await asyncio.sleep(0)
    return place(word)


class Place:
    """Do what `aplace` does when called: nothing about the object itself tells of it."""

    async def __call__(self, word: str) -> tuple[str, int]:
        return await aplace(word)


@wraps(aplace)
def decorated_place(*arguments: str) -> Any:
    """Do what `aplace` does, below a decorator that knows only of ordinary functions."""
    return aplace(*arguments)


def failing() -> None:
    raise LookupError("it is not there")


async def afailing() -> None:
    failing()


def asking(function: Callable[..., Any], *arguments: Any) -> Flow[Any]:
    return (yield call(function, *arguments))


@pytest.mark.parametrize("function", [place, aplace, Place(), decorated_place])
def test_a_function_of_either_colour_is_called_from_a_thread(function: Callable[..., Any]) -> None:
    word, _ = drive(asking(function, "word"))
    assert word == "word"


@pytest.mark.parametrize(("function", "leaves"), [(place, True), (aplace, False)])
def test_only_a_function_that_may_block_leaves_the_event_loop(
    function: Callable[..., Any], leaves: bool
) -> None:
    async def run() -> Any:
        return await adrive(asking(function, "word")), threading.get_ident()

    (word, where), loop = asyncio.run(run())
    assert word == "word"
    assert (where != loop) is leaves


@pytest.mark.parametrize("function", [Place(), decorated_place])
def test_what_only_turns_out_to_be_a_coroutine_is_awaited_on_the_loop(
    function: Callable[..., Any],
) -> None:
    async def run() -> Any:
        return await adrive(asking(function, "word")), threading.get_ident()

    (word, where), loop = asyncio.run(run())
    assert (word, where) == ("word", loop)


@pytest.mark.parametrize("function", [failing, afailing])
def test_what_a_function_raises_comes_out_of_the_flow(function: Callable[..., Any]) -> None:
    with pytest.raises(LookupError, match="not there"):
        drive(asking(function))
    with pytest.raises(LookupError, match="not there"):
        asyncio.run(adrive(asking(function)))


def test_a_flow_that_is_done_never_pauses() -> None:
    assert drive(Done("result")) == "result"


class Short(Shortcut[str]):
    """Asks a function for a word, and ends with it, or goes on if it got none."""

    def __init__(self, run: Callable[[], str], arun: Callable[[], Any]) -> None:
        self.run, self.arun = run, arun  # type: ignore[method-assign]

    def conclude(self, answer: str | None, error: Exception | None) -> str | Flow[str]:
        if isinstance(error, RuntimeError):
            raise error
        return answer if answer is not None else asking(lambda: f"instead of {error!r}")


async def _word() -> str:
    return "word"


def _long(short: Short) -> Flow[str]:
    return (yield from short)


def every_way(short: Short) -> list[str]:
    async def run(flow: Any) -> str:
        return await adrive(flow)

    flows = [lambda: short, lambda: _long(short)]
    return [drive(flow()) for flow in flows] + [asyncio.run(run(flow())) for flow in flows]


def test_a_shortcut_ends_the_same_by_itself_within_a_flow_and_on_a_loop() -> None:
    assert every_way(Short(lambda: "word", _word)) == ["word"] * 4


def test_a_shortcut_goes_on_as_a_flow_where_its_pause_fails() -> None:
    instead = "instead of LookupError('it is not there')"
    assert every_way(Short(failing, afailing)) == [instead] * 4  # type: ignore[arg-type]


def test_what_a_shortcut_does_not_conclude_comes_out_of_it() -> None:
    def broken() -> str:
        raise RuntimeError("it is broken")

    async def abroken() -> str:
        return broken()

    short = Short(broken, abroken)
    for flow in (lambda: short, lambda: _long(short)):
        with pytest.raises(RuntimeError, match="broken"):
            drive(flow())
        with pytest.raises(RuntimeError, match="broken"):
            asyncio.run(adrive(flow()))
