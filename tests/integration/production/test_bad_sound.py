"""What can be wrong with a video's sound, through the production engines over the wire: no word lost, none invented."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest

from deployments.types import SAMPLE_RATE_HZ
from tests.support import sounds
from tests.support.alignment_clips import CLIPS
from tests.support.contract import checked
from tests.support.sounds import TEXTS, in_a_row, speech, written

MONOLOGUE_MIN = float(os.environ.get("ML_SERVER_TEST_MONOLOGUE_MIN", "1"))
"""30 for the whole one, which takes minutes: give pytest a `--timeout` of 900 then."""
EDGE_S = 0.2


@pytest.fixture(scope="module")
def hear(server, sources, tmp_path_factory):
    """Sounds go in, as videos of their own at the same time; checked results come out."""
    folder = tmp_path_factory.mktemp("sounds")

    def hear(*audios, within_s=90, **fields):
        ids = []
        for at, audio in enumerate(audios):
            path = written(folder / f"{len(list(folder.iterdir()))}-{at}.wav", audio)
            ids.append(server.start(sources.file(path), **fields))
        results = []
        for job_id, audio in zip(ids, audios, strict=True):
            state = server.wait(job_id, within_s=within_s)
            assert state["status"] == "completed", state
            result = checked(state["result"])
            assert result.duration == pytest.approx(len(audio) / SAMPLE_RATE_HZ, abs=0.05)
            results.append(result)
        return results

    return hear


def words_of(result):
    return [word for segment in result.segments for word in segment.words]


def test_noise_and_tones_have_no_words(hear):
    """White, pink and syllabic noise, a chord, a siren and a melody: completed, without a word or a speaker."""
    noises = in_a_row(sounds.noise(4), sounds.noise(4, slope=0.5), sounds.syllables_of_noise(4))
    tones = in_a_row(sounds.chord(3), sounds.siren(5), sounds.melody(4))
    for result in hear(noises, tones):
        assert (result.text, result.segments, result.language) == ("", [], "auto")
        assert result.metadata.unique_speakers == 0
        assert {warning.code for warning in result.metadata.warning_codes} <= {"NOT_SPEECH"}


def test_words_between_noise_and_tones(hear):
    """Three sentences with a siren and noise between: theirs are the only words, each where it is said."""
    said = ("english_espeak", "english_espeak_f3", "english_awb")
    parts = [speech(said[0]), sounds.siren(3), speech(said[1]), sounds.noise(3), speech(said[2])]
    [result] = hear(in_a_row(*parts), language="en")
    assert result.text == " ".join(TEXTS[name] for name in said)
    words = words_of(result)
    start_s = 0.0
    for at, part in enumerate(parts):
        start_s += 0.6
        end_s = start_s + len(part) / SAMPLE_RATE_HZ
        if at % 2 == 0:
            for expected in TEXTS[said[at // 2]].split():
                word = words.pop(0)
                assert word.word == expected
                assert start_s - EDGE_S <= word.start < word.end <= end_s + EDGE_S
        start_s = end_s


def test_speech_that_is_too_quiet_or_clipped(hear):
    """60 dB too quiet (5 bits are left), and clipped by 12 dB: each word is right; the level told is the true one."""
    name = "english_espeak"
    faint, clipped = hear(
        *(in_a_row(sounds.louder(speech(name), gain_db)) for gain_db in (-60, 12)), emotion_detection=False
    )
    for result in (faint, clipped):
        assert (result.text, result.language, result.metadata.unique_speakers) == (TEXTS[name], "en", 1)
    assert max(word.volume_db for word in words_of(faint)) < -55
    assert max(word.volume_db for word in words_of(clipped)) > -10


def test_one_word(hear):
    """A single word of half a second in two seconds of silence is heard, and nothing else."""
    told = json.loads((CLIPS / "flite_awb.json").read_text())["utterances"][0]["words"][0]
    audio = sounds.soundfile.read(CLIPS / "flite_awb.ogg", dtype="int16")[0]
    cut = audio[round(told["start_s"] * SAMPLE_RATE_HZ) : round(told["end_s"] * SAMPLE_RATE_HZ)]
    [result] = hear(in_a_row(cut, pause_s=1.0), language="en")
    [word] = words_of(result)
    assert word.word.strip(".").lower() == told["text"]
    assert 1 - EDGE_S <= word.start < word.end <= 1 + len(cut) / SAMPLE_RATE_HZ + EDGE_S


def test_voices_that_overlap(hear):
    """Two voices, the second one coming in before the first one ends: the words that each says alone are there."""
    first, second = speech("english_awb"), speech("english_espeak_f3")
    at = len(first) - SAMPLE_RATE_HZ // 2
    mixed = np.zeros(at + len(second), np.int32)
    mixed[: len(first)] += first
    mixed[at:] += second
    [result] = hear(in_a_row(sounds.as_int16(mixed)), language="en")
    heard = result.text.lower().replace(".", "").split()
    for said in ("my small window closes your yellow", "coffee sees three happy letter today"):
        assert " ".join(heard).count(said) == 1, result.text


def test_a_language_without_an_aligner(hear):
    """German, for which no acoustic model is named: words timed by the recogniser's attention, without a warning."""
    [result] = hear(in_a_row(speech("english_espeak")), language="de")
    assert result.language == "de"
    assert len(words_of(result)) > 3
    assert not {"ALIGNER_MISSING", "ALIGNMENT_FAILED"} & {warning.code for warning in result.metadata.warning_codes}
    assert all(word.start < word.end for word in words_of(result))


def test_a_monologue(hear):
    """One voice for minutes: every word, none twice, no drift, one speaker."""
    said = ("english_espeak", "english_espeak")
    turn = in_a_row(*(speech(name) for name in said))
    count = round(MONOLOGUE_MIN * 60 * SAMPLE_RATE_HZ / len(turn))
    began = time.monotonic()
    [result] = hear(np.tile(turn, count), within_s=60 + 25 * MONOLOGUE_MIN, language="en")
    print(f"{result.duration / 60:.1f} min in {time.monotonic() - began:.1f} s: {result.metadata.stages}")
    words = words_of(result)
    expected = " ".join(TEXTS[name] for name in said).split() * count
    assert [word.word for word in words] == expected
    assert result.metadata.unique_speakers == 1
    period_s = len(turn) / SAMPLE_RATE_HZ
    per_turn = len(expected) // count
    drifts_s = [words[i].start - words[0].start - i // per_turn * period_s for i in range(0, len(words), per_turn)]
    assert max(map(abs, drifts_s)) < 0.1
