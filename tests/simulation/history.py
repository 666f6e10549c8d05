"""The history of a run, for a human: what clients asked, what broke, and what the backends were told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.story import Story


def lines(story: Story) -> list[str]:
    """All of it by time, the same to the byte for the same seed."""
    found: list[tuple[float, str]] = [(0.0, f"seed {story.seed}: {story.plan}")]
    found += [(at, f"  ! {what}") for at, what in story.notes]
    for receiver in story.world.receivers.values():
        found += [(at, f"  ! {receiver.name} {manner.name}") for at, manner in receiver.manners]
    for request in story.requests:
        about = f" video {request.video} for {request.receiver}" if request.video else ""
        about += f" {request.changes}" if request.changes else ""
        outcome = request.outcome + (f" {request.answer.get('status', '')}" if request.answer else "")
        found.append((request.at, f"> {request.kind} {request.job_id}{about}: {outcome} at {request.until:.3f}"))
    for receiver in story.world.receivers.values():
        for got in receiver.got:
            body = got.body
            said = body["result"]["text"] if body["status"] == "completed" else body.get("error_code", body["progress"])
            answer = f"{got.status} at {got.answered_at:.3f}" if got.status else "no answer"
            what = f"< {got.job_id} #{got.sequence} {body['status']} {said} {got.message_id[4:10]} to {receiver.name}"
            found.append((got.at, f"{what} from {got.sender}: {answer}"))
    for call in story.world.stages.calls:
        ended = "" if call.ended_at is None else f" until {call.ended_at:.3f}"
        found.append((call.at, f"    {call.stage} video {call.video} by {call.caller}{ended}"))
    return [f"{at:9.3f} {what}" for at, what in sorted(found, key=lambda each: each[0])]
