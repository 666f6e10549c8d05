"""Words get speakers: by overlap, and smoothed where the diarization's edge cuts into a sentence."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.types import Turn, Utterance, Word
from serve_app.jobs.assemble import segments_of
from serve_app.jobs.speakers import ONLY_SPEAKER, SHORT_S, Turns, smoothed, speaker_of, speakers_of

A, B, C = 3, 7, 5


def words(text: str, start_s: float = 0.0, *, each_s: float = 0.3) -> tuple[Word, ...]:
    """One word after the other; `|` is a pause of 0.4 s."""
    made = []
    for part in text.split():
        if part == "|":
            start_s += 0.4
            continue
        made.append(Word(start_s=round(start_s, 3), end_s=round(start_s + each_s, 3), text=part))
        start_s += each_s
    return tuple(made)


def turn(speaker: int, start_s: float, end_s: float) -> Turn:
    return Turn(start_s=start_s, end_s=end_s, speaker=speaker)


def told(text: str, *turns: Turn) -> str:
    """The speakers' letters, word by word."""
    names = {A: "A", B: "B", C: "C", ONLY_SPEAKER: "0"}
    return "".join(names[speaker] for speaker in speakers_of(words(text), Turns(turns)))


def test_most_overlap_wins() -> None:
    """Overlaps of several turns of a speaker add up; where nobody speaks the nearest turn counts, else speaker 0."""
    word = Word(start_s=1, end_s=2, text="w")
    assert speaker_of(word, Turns([turn(A, 0, 1.3), turn(B, 1.2, 1.6), turn(A, 1.7, 5)])) == A
    assert speaker_of(word, Turns([turn(A, 0, 1.3), turn(B, 1.2, 1.6), turn(A, 1.9, 5)])) == A
    assert speaker_of(word, Turns([turn(B, 2.1, 3), turn(A, 0, 0.8)])) == B
    assert speaker_of(word, Turns([turn(B, 2.1, 3), turn(A, 0, 0.95)])) == A
    assert speaker_of(word, Turns([])) == ONLY_SPEAKER


def test_a_sentences_last_word_stays_with_its_sentence() -> None:
    """The next turn begins 0.2 s too early and takes most of the last word, but not clearly: it stays."""
    for text in ("we will do it today. yes I think so", "we will do it today | yes I think so", "we will do it today"):
        assert told(text, turn(A, 0, 1.3), turn(B, 1.3, 5)) == "AAAAABBBB"[: len(text.replace("|", "").split())]


def test_a_sentences_first_word_stays_with_its_sentence() -> None:
    """The turn before ends too late."""
    assert told("how are you now", turn(A, -3, 0.2), turn(B, 0.2, 3)) == "BBBB"


def test_a_word_that_is_clearly_anothers_is_theirs() -> None:
    """Covered to four fifths by a turn that goes on for long: no smoothing."""
    assert told("w w w w w w w w", turn(A, 0, 1.22), turn(B, 1.22, 5)) == "AAAABBBB"
    assert told("how are you now", turn(A, -3, 0.3), turn(B, 0.3, 3)) == "ABBB"


def test_a_blip_inside_a_sentence_is_no_speaker() -> None:
    """A turn of half a second within someone's sentence, hardly longer than the word it covers, is the detector's."""
    assert told("w w w w w w", turn(A, 0, 0.9), turn(B, 0.85, 1.25), turn(A, 1.25, 3)) == "AAAAAA"


def test_a_short_answer_stays() -> None:
    """A word between pauses, or a sentence of its own, is its turn's speaker's however short both are."""
    assert (
        told("do you like it | yes | good for you", turn(A, 0, 1.3), turn(B, 1.6, 1.9), turn(A, 2.3, 5)) == "AAAABAAA"
    )
    assert told("do you? Yes. Good for you.", turn(A, 0, 0.6), turn(B, 0.65, 0.85), turn(A, 0.9, 5)) == "AABAAA"
    assert told("do you like it | yes", turn(A, 0, 1.3), turn(B, 1.7, 1.9)) == "AAAAB"


def test_a_longer_run_stays() -> None:
    """Three words, or six tenths of a second, are never doubted, whatever the turns look like."""
    assert told("w w w n n n w w", turn(A, 0, 0.9), turn(B, 1.0, 1.7), turn(A, 1.8, 5)) == "AAABBBAA"
    quick = words("w w n n n w w", each_s=0.15)
    speakers = [A, A, B, B, B, A, A]
    assert smoothed(quick, speakers, Turns([turn(A, -2, 0.3), turn(B, 0.35, 0.7), turn(A, 0.8, 5)])) == speakers
    slow = words("w w slow w w", each_s=SHORT_S)
    speakers = [A, A, B, A, A]
    assert smoothed(slow, speakers, Turns([turn(A, 0, 1.2), turn(B, 1.3, 1.7), turn(A, 1.9, 5)])) == speakers


def test_between_two_speakers_who_covers_more_gets_it() -> None:
    """A doubtful word between two others goes to the one whose turns cover more of it, else to the nearer one."""
    line = words("w w w w w w w")
    turns = [turn(A, 0, 0.95), turn(C, 0.95, 1.1), turn(B, 1.1, 5)]
    assert smoothed(line, [A, A, A, C, B, B, B], Turns(turns)) == [A, A, A, B, B, B, B]
    near = (*words("w w w"), *words("w w w w", 1.0))
    turns = [turn(A, 0, 0.9), turn(C, 1.05, 1.2), turn(B, 1.3, 5)]
    assert smoothed(near, [A, A, A, C, B, B, B], Turns(turns)) == [A, A, A, B, B, B, B]


def test_an_utterance_of_doubtful_words_is_left_alone() -> None:
    """Where no run is sure, nothing speaks for another speaker."""
    assert told("w w", turn(A, 0, 0.2), turn(B, 0.4, 0.6)) == "AB"


def test_segments_end_where_the_speaker_changes() -> None:
    """An utterance becomes a segment per speaker, without the edge word's jump, numbered in order of first speech."""
    line = words("we will do it today. yes I think so")
    utterance = Utterance(start_s=0, end_s=3, text="", words=line)
    segments = segments_of([utterance], [turn(B, 1.3, 5), turn(A, 0, 1.3)])
    assert [(segment.speaker, segment.text) for segment in segments] == [
        (0, "we will do it today."),
        (1, "yes I think so"),
    ]


times = st.integers(0, 120).map(lambda tenths: tenths / 10)
spans = st.tuples(times, st.integers(1, 25)).map(lambda pair: (pair[0], pair[0] + pair[1] / 10))
some_turns = st.lists(st.builds(lambda s, who: turn(who, *s), spans, st.sampled_from([A, B, C])), max_size=12)
some_words = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from(["w", "w."])), min_size=1, max_size=20
)


def in_sequence(parts: list[tuple[int, int, str]]) -> tuple[Word, ...]:
    made, at_s = [], 0.0
    for gap, length, text in parts:
        start_s = at_s + gap / 20
        at_s = start_s + length / 10
        made.append(Word(start_s=start_s, end_s=at_s, text=text))
    return tuple(made)


@given(parts=some_words, turns=some_turns)
def test_the_same_words_come_out(parts: list[tuple[int, int, str]], turns: list[Turn]) -> None:
    """Whatever the words and turns: the same words in the same order, speakers from the turns only, and never new."""
    line = in_sequence(parts)
    first = [speaker_of(word, Turns(turns)) for word in line]
    speakers = smoothed(line, first, Turns(turns))
    assert len(speakers) == len(line)
    assert set(speakers) <= set(first) <= ({turn.speaker for turn in turns} or {ONLY_SPEAKER})
    utterance = Utterance(start_s=0, end_s=99, text="", words=line)
    out = [word for segment in segments_of([utterance], turns) for word in segment.words]
    assert out == list(line)


@given(parts=some_words, turns=some_turns)
def test_turns_are_found_by_time_as_by_going_through_all(parts: list[tuple[int, int, str]], turns: list[Turn]) -> None:
    """The index gives the turns over a word, and as near a one beside it, as looking at every turn does."""
    for word in in_sequence(parts):
        over = [each for each in sorted(turns, key=lambda each: each.start_s) if word.overlap_s(each)]
        assert Turns(turns).over(word) == over
        nearest = Turns(turns).nearest(word)
        if not turns:
            assert nearest is None
        elif nearest and not over and word.duration_s:
            gaps = [max(each.start_s - word.end_s, word.start_s - each.end_s) for each in turns]
            assert max(nearest.start_s - word.end_s, word.start_s - nearest.end_s) == min(gaps)


@given(parts=some_words, turns=some_turns)
def test_a_word_deep_in_its_speakers_turn_keeps_its_speaker(
    parts: list[tuple[int, int, str]], turns: list[Turn]
) -> None:
    """Who alone speaks from 0.3 s before to 0.6 s after a word, says it."""
    for word, speaker in zip(in_sequence(parts), speakers_of(in_sequence(parts), Turns(turns)), strict=True):
        wide = turn(A, word.start_s - 0.3, word.end_s + SHORT_S)
        over = Turns(turns).over(wide)
        if len(over) == 1 and over[0].start_s <= wide.start_s and over[0].end_s >= wide.end_s:
            assert speaker == over[0].speaker


def test_an_hour_takes_no_time() -> None:
    """Ten thousand words on two thousand turns: a fraction of a second of CPU."""
    line = words("w " * 20, each_s=0.35)
    turns = Turns(turn(i % 3, i * 1.8, i * 1.8 + 1.9) for i in range(2000))
    started = time.process_time()
    for at in range(500):
        shifted = [Word(start_s=w.start_s + at * 7, end_s=w.end_s + at * 7, text="w") for w in line]
        speakers_of(shifted, turns)
    assert time.process_time() - started < 2.0


@pytest.mark.parametrize("count", [0, 1])
def test_few_words(count: int) -> None:
    """No word, or one: nothing to smooth, nothing to fail on."""
    assert speakers_of(words("w " * count), Turns([turn(A, 0, 1)])) == [A] * count
