"""A stage without a model, as a deployment's class: answers after a short time by chance, so that kills hit it busy.

Imported by every replica of the checker's graph: light, so that one is back soon after its death.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import TYPE_CHECKING, Any

from tests.chaos import answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SEED_VARIABLE = "ML_CHAOS_SEED"
SHORTEST_S, LONGEST_S = 0.05, 0.5


def stage(methods: Iterable[str]) -> type:
    """A class with these of `answers` as its methods; it takes whatever the real one is made of."""

    class Stage:
        def __init__(self, *_: object) -> None:
            self.chance = random.Random(f"{os.environ.get(SEED_VARIABLE)} {os.getpid()}")

    for name in methods:
        setattr(Stage, name, slowly(getattr(answers, name)))
    return Stage


def slowly(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as a method that takes its time."""

    async def method(self: Any, *args: Any, **options: Any) -> Any:
        await asyncio.sleep(self.chance.uniform(SHORTEST_S, LONGEST_S))
        return function(*args, **options)

    return method
