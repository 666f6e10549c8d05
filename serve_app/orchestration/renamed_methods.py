"""Actors' methods that the release before called otherwise: while `serve deploy` runs, both releases call each other.

An actor of this release answers to both names (aliases in `JobManager` and `JobActor`); a caller of this release finds
whichever of them an actor has. To be removed with the release after this one.
"""

from __future__ import annotations

from typing import Any

NAME_BEFORE = {"wake": "poke", "status": "look", "step_down": "leave", "give_back": "leave"}


def remote_method(actor: Any, name: str) -> Any:
    """Return an actor's method `name`, or what the release before called it where the actor does not have that."""
    try:
        return getattr(actor, name)
    except AttributeError:
        return getattr(actor, NAME_BEFORE[name])
