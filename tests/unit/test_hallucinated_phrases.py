from __future__ import annotations

import pytest

from deployments.hallucinations.phrases import is_hallucinated_phrase, without_hallucinated_phrases


@pytest.mark.parametrize(
    "sentence",
    [
        "시청해주셔서 감사합니다.",
        "시청해 주셔서 감사합니다!",
        "오늘도 영상 시청해주셔서 감사합니다.",
        "구독과 좋아요",
        "구독과 좋아요 부탁드립니다.",
        "구독과 좋아요, 알림 설정까지 눌러주세요!",
        "MBC 뉴스 이덕영입니다.",
        "한글자막 by 한효정",
        "Thanks for watching!",
        "THANK YOU FOR WATCHING",
        "Please subscribe.",
        "Please subscribe to my channel!",
        "Don't forget to like and subscribe.",
        "Subtitles by the Amara.org community",
        "Sous-titres réalisés par la communauté d'Amara.org",
    ],
)
def test_the_well_known_phrases_are_known(sentence: str) -> None:
    """However they are spaced, cased or punctuated."""
    assert is_hallucinated_phrase(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "감사합니다.",
        "Thank you.",
        "뉴스에서 봤는데 구독과 좋아요를 누르라는 말이 너무 많아요.",
        "I have been watching the news and thanks for the coffee.",
        "We subscribe to three newspapers.",
        "MBC에서 일하고 있습니다.",
        "자막이 필요합니다.",
    ],
)
def test_what_people_say_is_not(sentence: str) -> None:
    """Sentences that only contain such words, and thanks that people do say."""
    assert not is_hallucinated_phrase(sentence)


def test_only_the_phrases_sentences_go() -> None:
    """The rest of the text stays, in order, with its punctuation."""
    text = "안녕하세요. 시청해주셔서 감사합니다. Is it 3.5? Thanks for watching! 끝."
    assert without_hallucinated_phrases(text) == "안녕하세요. Is it 3.5? 끝."
    assert without_hallucinated_phrases("MBC 뉴스 김성현입니다.") == ""
