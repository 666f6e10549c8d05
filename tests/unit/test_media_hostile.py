"""M1, M4: the hostile corpus against the extraction. A seeded share of it here, the whole behind `full`."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from deployments.extraction.media_decoder import DEMUXERS
from tests.support import hostile_media, media_campaign
from tests.support.media_campaign import Canary, campaign, good_files, judge_all, lay_bait, table

if TYPE_CHECKING:
    from pathlib import Path

    from deployments.extraction.config import MediaLimits

SEED = 5
FEW = 16
WORST = ("concat-name", "hls-name", "hls-http", "hls-key", "dash-base", "rtsp", "asx", "dref-alias-path")
"""Each works in an ffmpeg that is let: a list, playlists, calls over the network, samples in another file."""


def few(files: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """Some of `files`: the same ones whenever the seed is the same."""
    return random.Random(SEED).sample(sorted(files.items()), FEW)  # noqa: S311


def test_m1_files_that_name_others_reach_nothing(tmp_path: Path) -> None:
    """M1: playlists, external samples, linked segments: a clean end, no connection, no sound of another file."""
    bait = lay_bait(tmp_path)
    with Canary.listening() as canary:
        named = hostile_media.references(bait.path, canary.port)
        worst = {name: named[name] for name in WORST}
        verdicts = judge_all(tmp_path, [*worst.items(), *few(named)])
        print(table(f"seed {SEED}", verdicts, canary))
        assert canary.count() == 0
    assert all(each.contained for each in verdicts)


def test_m1_the_corpus_can_bite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """M1: without the list of formats the same judge does hear the other file: what it says of the rest counts."""
    bait = lay_bait(tmp_path)
    named = hostile_media.references(bait.path, 9)
    command = media_campaign.media.command

    def open_line(path: Path, limits: MediaLimits, language: str) -> list[str]:
        return [f"{word},concat" if word == DEMUXERS else word for word in command(path, limits, language)]

    monkeypatch.setattr(media_campaign.media, "command", open_line)
    (verdict,) = judge_all(tmp_path, [("bites", named["concat-name"])])
    assert verdict.heard
    assert not verdict.contained


def test_m4_bombs_and_damaged_files_end_cleanly(tmp_path: Path) -> None:
    """M4: small files that ask for much, and good ones with damage: an error of the contract or bounded sound."""
    damaged = dict(hostile_media.mutations(good_files(tmp_path), SEED))
    assert len(damaged) >= 300
    with Canary.listening() as canary:
        verdicts = judge_all(tmp_path, [*few(hostile_media.bombs()), *few(damaged)])
        print(table(f"seed {SEED}", verdicts, canary))
        assert canary.count() == 0
    assert all(each.contained for each in verdicts)


def test_m4_a_seed_makes_the_same_files() -> None:
    """M4: a failure can be made again from the seed that it prints."""
    good = {"a": bytes(range(256)) * 20, "b": bytes(5000)}
    one, same, other = (list(hostile_media.mutations(good, seed)) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.full
def test_m1_m4_the_whole_corpus(tmp_path: Path) -> None:
    """M1, M4: all of it."""
    verdicts, hits = campaign(tmp_path, SEED)
    assert hits == 0
    assert len(verdicts) >= 400
    assert all(each.contained for each in verdicts)
