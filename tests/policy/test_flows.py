"""Flows give the same to threads and to event loops, and block no loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest

from django_ratelimit_tiers.policy.flows import Flow, adrive, call, done, drive


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
    assert drive(done("result")) == "result"
