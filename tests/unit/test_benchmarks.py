from __future__ import annotations

import inspect

import pytest

from tests.benchmarks.bench_durability import ASKED, ENDED, turns
from tests.benchmarks.bench_overhead import share_of
from tests.benchmarks.known_talk import errors, known_talk, of_whisperx
from tests.benchmarks.watched_graph import ENGINES, _place


def test_a_jobs_time_is_shared_out_without_rest():
    """What no engine and no download covers is the server's own, told by where it lies; all parts make the whole."""
    computations = [(12, 18, "c"), (5, 7, "a"), (6, 10, "b"), (6.5, 6.6, "a"), (10, 11, "a")]
    share = share_of((0, 20), (1.5, 4), computations, others=0.0)
    assert (share.start_s, share.audio_s, share.between_s, share.end_s) == (1.5, 1, 1, 2)
    assert (share.fetched_s, share.computed_s) == (2.5, 12)
    assert share.gaps_s == {"a - c": 1}
    assert share.own_s + share.fetched_s + share.computed_s == share.wall_s


@pytest.mark.parametrize("target", [target for engines in ENGINES.values() for target in engines])
def test_canned_answers_stand_in_for_what_is_there(target):
    """Each engine's method that the overhead benchmark replaces exists and takes what the canned one takes."""
    owner, name = _place(target)
    real = inspect.signature(getattr(owner, name))
    canned = inspect.signature(next(engines[target] for engines in ENGINES.values() if target in engines))
    positional = [
        len([each for each in found.parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD])
        for found in (real, canned)
    ]
    assert positional[0] == positional[1]


def test_errors_are_those_that_were_made():
    """A perfect answer has none, whatever speakers are called; a wrong word and a lost speaker count as one each."""
    talk = known_talk(20)
    renamed = [(start_s, end_s, f"SPEAKER_{speaker}") for start_s, end_s, speaker in talk.words]
    perfect = errors(talk, talk.text.upper() + ".", renamed)
    assert (perfect.wer, perfect.der, perfect.speakers) == (0, 0, len({word[2] for word in talk.words}))
    words = talk.text.split()
    assert errors(talk, " ".join(["nonsense", *words[1:]]), renamed).wer == pytest.approx(1 / len(words))
    alone = errors(talk, talk.text, [(*edges, "one") for *edges, _ in talk.words])
    assert alone.speakers == 1
    assert alone.der > 0.1


def test_words_of_whisperx_without_a_place_are_nobodys():
    """A word that whisperX gives no time or no speaker stays in the text and is in no turn."""
    segments = [{"text": "a b", "words": [{"word": "a"}, {"word": "b", "start": 1, "end": 2, "speaker": "S"}]}]
    assert of_whisperx(segments) == ("a b", [(1, 2, "S")])


def test_a_jobs_turns_at_the_database_are_its_drivers():
    """The process that says that the job ended is the driver; what others ask is not the job's."""
    kinds = [(1, "read", "get"), (2, "write", "tell"), (2, "read", "get")]
    asked = [{"message": ASKED, "pid": pid, "kind": kind, "asker": name, "seconds": 0.5} for pid, kind, name in kinds]
    ends = [{"message": ENDED, "pid": pid, "ecg_job_id": name} for pid, name in ((1, "other"), (2, "mine"))]
    found = turns([*asked, *ends], "mine")
    assert (len(found.own), found.others_s) == (2, 0.5)
    assert found.cells(10.0)[1:5] == ["1, 1", "1.000", "**10.00%**", "5.00%"]
