"""M1, M4: the hostile corpus against the extraction. A seeded share of it here, the whole behind `full`."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import imageio_ffmpeg
import pytest

from tests.support import hostile_media, media_campaign
from tests.support.media_campaign import Canary, campaign, good_files, judge_all, lay_bait, table

SEED = 5
FEW = 16
WORST = ("concat-name", "hls-name", "hls-http", "hls-key", "dash-base", "rtsp", "asx", "dref-alias-path")
"""Each works in an ffmpeg that is let: a list, playlists, calls over the network, samples in another file."""


def few(files: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """Some of `files`: the same ones whenever the seed is the same."""
    return random.Random(SEED).sample(sorted(files.items()), FEW)  # noqa: S311


@pytest.mark.parametrize("alone", [False, True], ids=["with its probe", "ffmpeg alone"])
def test_m1_files_that_name_others_reach_nothing(tmp_path: Path, *, alone: bool) -> None:
    """M1: playlists, external samples, linked segments: a clean end, no connection, no sound of another file."""
    bait = lay_bait(tmp_path)
    with Canary.listening() as canary:
        named = hostile_media.references(bait.path, canary.port)
        worst = {name: named[name] for name in WORST}
        verdicts = judge_all(tmp_path, [*worst.items(), *few(named)], alone=alone)
        print(table(f"seed {SEED}", verdicts, canary))
        assert canary.count() == 0
    assert all(each.contained for each in verdicts)


def test_m1_the_corpus_can_bite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """M1: without the list of formats the same judge does hear the other file: what it says of the rest counts."""
    bait = lay_bait(tmp_path)
    named = hostile_media.references(bait.path, 9)
    command = media_campaign.media.command

    def open_line(path: Path, limits: object) -> list[str]:
        words = command(path, limits)
        at = words.index("-format_whitelist")
        return words[:at] + words[at + 2 :]

    monkeypatch.setattr(media_campaign.media, "command", open_line)
    (verdict,) = judge_all(tmp_path, [("bites", named["concat-name"])], alone=True)
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


FFMPEGS = {imageio_ffmpeg.get_ffmpeg_exe(), shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()}


@pytest.mark.full
@pytest.mark.parametrize("ffmpeg", sorted(FFMPEGS), ids=lambda path: Path(path).name)
def test_m1_m4_the_whole_corpus(ffmpeg: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """M1, M4: all of it, on the ffmpeg that comes along and on the system's where there is one."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ffmpeg").symlink_to(ffmpeg)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    verdicts, hits = campaign(tmp_path, SEED)
    assert hits == 0
    assert len(verdicts) >= 500
    assert all(each.contained for each in verdicts)
