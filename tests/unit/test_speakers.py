"""Words get speakers: the cheapest way through the diarization's turns, whose edges do not cut into sentences."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.types import Turn, Word
from serve_app.pipeline.speakers import (
    EDGE_S,
    LONGEST_WORD_S,
    ONLY_SPEAKER,
    REACH_S,
    Turns,
    assign_word_speakers,
    costs_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

A, B, C = 3, 7, 5


def words(text: str, start_s: float = 0.0, *, each_s: float = 0.3) -> tuple[Word, ...]:
    """One word after the other; `|` is a pause of 0.41 s."""
    made = []
    for part in text.split():
        if part == "|":
            start_s += 0.41
            continue
        made.append(Word(start_s=round(start_s, 3), end_s=round(start_s + each_s, 3), text=part))
        start_s += each_s
    return tuple(made)


def turn(speaker: int, start_s: float, end_s: float) -> Turn:
    return Turn(start_s=start_s, end_s=end_s, speaker=speaker)


def told(text: str, *turns: Turn) -> str:
    """The speakers' letters, word by word."""
    names = {A: "A", B: "B", C: "C", ONLY_SPEAKER: "0"}
    return "".join(names[speaker] for speaker in assign_word_speakers(words(text), Turns(turns)))


@pytest.mark.parametrize("off_s", [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3])
def test_a_turns_edge_does_not_tear_a_sentence(off_s: float) -> None:
    """The next turn begins too early, or the turn before ends too late: the change stays at the sentence's end."""
    edge_s = 1.5 + off_s
    assert told("we will do it today. Yes I think so", turn(A, 0, edge_s), turn(B, edge_s, 5)) == "AAAAABBBB"
    assert told("we will do it today. Yes I think so", turn(A, 0, edge_s), turn(B, 1.5, 5)) == "AAAAABBBB"
    assert told("we will do it today | yes I think so", turn(A, 0, edge_s), turn(B, edge_s + 0.4, 5)) == "AAAAABBBB"


def test_a_change_without_a_pause_or_a_full_stop_is_found() -> None:
    """Where the turns are clear the words change hands in mid-air, at the word where the turns do."""
    assert told("w w w w w w w w", turn(A, 0, 1.2), turn(B, 1.2, 5)) == "AAAABBBB"
    assert told("w w w w. W w w w", turn(A, 0, 1.2), turn(B, 1.2, 5)) == "AAAABBBB"


def test_a_word_of_agreement_within_anothers_sentence_keeps_its_speaker() -> None:
    """One word, its own sentence by its spelling, said in a gap or over the other's turn."""
    text = "when I came home. Yeah. the door was open."
    assert told(text, turn(A, 0, 1.2), turn(B, 1.2, 1.5), turn(A, 1.5, 3)) == "AAAABAAAA"
    assert told(text, turn(A, 0, 3), turn(B, 1.15, 1.55)) == "AAAABAAAA"
    told_by = told("do you like it | oh yes | good for you", turn(A, 0, 1.3), turn(B, 1.6, 2.2), turn(A, 2.6, 5))
    assert told_by == "AAAABBAAA"


def test_a_blip_inside_a_sentence_is_no_speaker() -> None:
    """A turn hardly longer than the word it covers, in the middle of someone's sentence, is the detector's mistake."""
    assert told("w w w w w w", turn(A, 0, 0.9), turn(B, 0.9, 1.2), turn(A, 1.2, 3)) == "AAAAAA"
    assert told("w w w w w w", turn(A, 0, 3), turn(B, 0.9, 1.2)) == "AAAAAA"


def test_who_speaks_within_anothers_turn_is_who_was_heard() -> None:
    """A sentence under two turns, one of them within the other, is the inner one's; at equal terms nobody is torn."""
    assert told("How are you. Neither did I. And then we went", turn(A, 0, 3), turn(B, 0.85, 1.85)) == "AAABBBAAAA"


def test_a_hole_between_turns_belongs_to_the_nearer_one() -> None:
    """A sentence that no turn covers goes to the nearest turn's speaker; where nobody has a turn, to speaker 0."""
    assert told("One two. Three four. Five six.", turn(A, 0, 0.3), turn(B, 1.3, 3)) == "AABBBB"
    assert told("One two. Three four. Five six.", turn(A, 0, 1.0), turn(B, 1.8, 3)) == "AAAABB"
    assert told("one two", turn(B, 40, 41), turn(A, -30, -20)) in {"AA", "BB"}
    assert told("one two") == "00"


def test_a_words_cost_is_its_time_outside() -> None:
    """Nothing within the turn, half its time at an edge's error from it, all out of reach; never over a long word's."""
    at = Word(start_s=10, end_s=10.4, text="w")
    assert costs_of(at, Turns([turn(A, 9, 11)])) == {A: 0}
    assert costs_of(at, Turns([turn(A, 9, 10.2 - EDGE_S)]))[A] == pytest.approx(0.2, abs=0.02)
    assert costs_of(at, Turns([turn(A, 1, 10 - REACH_S)])) == {}
    slow = Word(start_s=10, end_s=19, text="w")
    assert costs_of(slow, Turns([turn(A, 8, 9.9)]))[A] < LONGEST_WORD_S


times = st.integers(0, 120).map(lambda tenths: tenths / 10)
spans = st.tuples(times, st.integers(1, 25)).map(lambda pair: (pair[0], pair[0] + pair[1] / 10))
some_turns = st.lists(st.builds(lambda s, who: turn(who, *s), spans, st.sampled_from([A, B, C])), max_size=12)
some_words = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from(["w", "w,", "w."])), max_size=20)


def in_sequence(parts: list[tuple[int, int, str]]) -> tuple[Word, ...]:
    made, at_s = [], 0.0
    for gap, length, text in parts:
        start_s = at_s + gap / 20
        at_s = start_s + length / 10
        made.append(Word(start_s=start_s, end_s=at_s, text=text))
    return tuple(made)


@given(parts=some_words, turns=some_turns)
def test_every_word_gets_a_speaker_of_the_turns(parts: list[tuple[int, int, str]], turns: list[Turn]) -> None:
    """Whatever the words and turns: one speaker each, and none that has no turn."""
    speakers = assign_word_speakers(in_sequence(parts), Turns(turns))
    assert len(speakers) == len(parts)
    assert set(speakers) <= ({each.speaker for each in turns} or {ONLY_SPEAKER})


@given(parts=some_words, turns=some_turns)
def test_turns_are_found_by_time_as_by_going_through_all(parts: list[tuple[int, int, str]], turns: list[Turn]) -> None:
    """The index gives the turns near a word as looking at every turn does."""
    for word in in_sequence(parts):
        near = [
            each
            for each in sorted(turns, key=lambda each: each.start_s)
            if each.end_s > word.start_s - 0.5 and each.start_s < word.end_s + 0.5
        ]
        assert Turns(turns).near(word, 0.5) == near


@given(parts=some_words, turns=some_turns)
def test_who_alone_speaks_around_a_sentence_says_it(parts: list[tuple[int, int, str]], turns: list[Turn]) -> None:
    """Whatever lies before and after."""
    line = words("Good for you.", 20)
    spoken = (*in_sequence(parts), *line, *words("w w. w", 30))
    assert assign_word_speakers(spoken, Turns([*turns, turn(B, 19.8, 21), turn(A, 28, 32)]))[len(parts) :][:3] == [
        B,
        B,
        B,
    ]


def spent_s(work: Callable[[], object]) -> float:
    """Processor time, the least of three tries."""
    times_s = []
    for _ in range(3):
        started_s = time.process_time()
        work()
        times_s.append(time.process_time() - started_s)
    return min(times_s)


def test_an_hour_takes_ten_times_what_six_minutes_take() -> None:
    """Ten thousand words on two thousand turns: linear in the words, not a hundred times as long."""

    def attribute(rounds: int) -> float:
        line = tuple(word for at in range(rounds) for word in words("w " * 19 + "w.", at * 7, each_s=0.35))
        turns = Turns(turn(i % 3, i * 1.8, i * 1.8 + 1.9) for i in range(rounds * 4))
        return spent_s(lambda: assign_word_speakers(line, turns))

    assert attribute(500) < 30 * attribute(50)


def test_a_word_looks_at_the_turns_around_it_alone() -> None:
    """Among a hundred times as many turns the near ones are found in about the same time."""

    def find(count: int) -> float:
        turns = Turns(turn(i % 3, i * 1.8, i * 1.8 + 1.9) for i in range(count))
        at = words("w", count * 1.8 - 5)[0]
        return spent_s(lambda: [turns.near(at, REACH_S) for _ in range(300)])

    assert find(20_000) < 10 * find(200)
