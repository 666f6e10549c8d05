from __future__ import annotations

import inspect

import numpy as np
import pytest

from tests.benchmarks.__main__ import BENCHES, chosen_benches, listed
from tests.benchmarks.bench_overhead import share_of
from tests.benchmarks.bench_whisperx import OURS, Heard, texts_table, worse
from tests.benchmarks.known_texts import Count, Recording, count, normalized, recordings, repeated
from tests.benchmarks.watched_graph import ENGINES, engine_class

BY_PLACE = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}


def test_parts_are_listed_and_chosen_with_their_arguments():
    """`make bench` names the parts; each line of that list is what `PARTS` takes."""
    lines = [row.split("|")[1].strip() for row in listed().splitlines()[2:]]
    assert len(lines) > len(BENCHES)
    for line in lines:
        name, *arguments = line.split()
        assert chosen_benches(line.split()) == [(name, arguments)]
    assert chosen_benches([]) == []
    assert chosen_benches(["server", "length", "1", "load"]) == [("server", []), ("length", ["1"]), ("load", [])]
    with pytest.raises(SystemExit, match="unknown: hour"):
        chosen_benches(["hour"])


def test_a_jobs_time_is_shared_out_without_rest():
    """What no engine and no download covers is the server's own, told by where it lies; all parts make the whole."""
    computations = [(12, 18, "c"), (5, 7, "a"), (6, 10, "b"), (6.5, 6.6, "a"), (10, 11, "a")]
    share = share_of((0, 20), (1.5, 4), computations, others=0.0)
    assert (share.start_s, share.audio_s, share.between_s, share.end_s) == (1.5, 1, 1, 2)
    assert (share.fetched_s, share.computed_s) == (2.5, 12)
    assert share.gaps_s == {"a - c": 1}
    assert share.own_s + share.fetched_s + share.computed_s == share.wall_s


@pytest.mark.parametrize(
    ("place", "fake", "method"), [(*each[:2], name) for each in ENGINES.values() for name in each[2]]
)
def test_the_fakes_stand_in_for_what_is_there(place, fake, method):
    """Each engine's method that the overhead benchmark watches exists and takes what the shipped fake's takes."""
    taken = [
        [each.kind for each in inspect.signature(getattr(owner, method)).parameters.values() if each.kind in BY_PLACE]
        for owner in (engine_class(place), fake)
    ]
    assert taken[0] == taken[1]


def a_recording(text: str, language: str = "en") -> Recording:
    return Recording(kind="kind", name="name", language=language, text=text, audio=np.zeros(16_000, np.int16))


def test_texts_are_compared_as_whisper_compares_them():
    """Case, punctuation, contractions and how a number is written count for nothing, a wrong word for one error."""
    said = a_recording("No, I don't know: forty-two people, Mr. Brown!")
    assert count(said, "no i do not know 42 people mister brown").errors == 0
    assert count(said, "no i do not know 43 people brown") == Count(errors=2, of=9)


def test_korean_is_compared_by_its_letters():
    """Without spaces and punctuation, which its writers put as they like; an unheard sentence is all errors."""
    said = a_recording("기차도 전기도 없었다.", "ko")
    assert count(said, "기차도전기도 없었다") == Count(errors=0, of=9)
    assert count(said, "") == Count(errors=9, of=9)
    assert normalized("네, 네!", "ko") == "네네"


def test_a_repeated_recording_has_its_text_as_often():
    """Sound and text of all parts, each time with a pause after it."""
    parts = (a_recording("one two"), a_recording("three"))
    long = repeated(parts, 3)
    assert (long.text, long.duration_s) == ("one two three " * 2 + "one two three", 3 * (1.5 + 1.5))


def test_recordings_that_are_there_have_sound_and_text():
    """The call, the reading, the dialogues and the drawn words: everything but the folder of real recordings."""
    found = list(recordings())
    kinds = {each.kind for each in found}
    assert {"real, telephone", "real, read", "real, repeated", "synthesized, dialogues"} < kinds
    assert all(each.text.strip() and each.duration_s > 1 for each in found)


def test_a_recording_more_than_two_words_worse_than_either_side_is_named():
    """The table pools errors over words; who is behind the better of the bare sides by three words is told."""

    def side(*errors: int) -> list[tuple[Recording, Heard]]:
        each = a_recording("a b c d e f g h i j")
        return [(each, Heard(count=Count(errors=n, of=10), processor_s=2.0)) for n in errors]

    heard = {OURS: side(3, 3), "whisperx-text": side(0, 1), "faster-whisper": side(9, 9)}
    assert "| kind | 2 | 2 | 20 | 30.0 | 5.0 | 90.0 | 1.00 | 1.00 |" in texts_table(heard)
    assert worse(heard).count("name (10 words): 3, whisperx-text 0") == 1
    assert "whisperx-text 1" not in worse(heard)
