"""Phrases that Whisper is known to hallucinate over silence: remains of the subtitles that it was trained on.

People do say "thanks for watching", so callers drop these phrases only where something else speaks against speech.
"Thank you" alone and "감사합니다" alone, which Whisper hallucinates as well, are said by too many people: they count
only over a sound that is too short for them.
"""

from __future__ import annotations

import math
import re
from typing import Final

PHRASES: Final = (
    # the ends of Korean videos
    "시청해주셔서 감사합니다",
    "시청해주셔서 고맙습니다",
    "시청해 주신 여러분 감사합니다",
    "오늘도 * 시청해주셔서 감사합니다",
    "지금까지 * 시청해주셔서 감사합니다",
    "끝까지 * 시청해주셔서 감사합니다",
    "영상 시청해주셔서 감사합니다",
    "영상을 시청해주셔서 감사합니다",
    "봐주셔서 감사합니다",
    "끝까지 봐주셔서 감사합니다",
    "구독과 좋아요",
    "구독과 좋아요 * 부탁드립니다",
    "구독과 좋아요 * 눌러주세요",
    "구독 좋아요 * 부탁드립니다",
    "구독 좋아요 * 눌러주세요",
    "좋아요와 구독 * 부탁드립니다",
    "좋아요와 구독 * 눌러주세요",
    "구독 부탁드립니다",
    "다음 영상에서 만나요",
    "다음 영상에서 뵙겠습니다",
    "다음 시간에 만나요",
    "다음 시간에 뵙겠습니다",
    # Korean broadcasters and subtitlers
    "MBC 뉴스 *",
    "KBS 뉴스 *",
    "SBS 뉴스 *",
    "YTN * 입니다",
    "한글자막 by *",
    "자막 제공 *",
    "자막 제작 *",
    "자막 협찬 *",
    "* 유료 광고를 포함하고 있습니다",
    # the ends of English videos
    "thanks for watching",
    "thanks for watching and *",
    "thanks for watching this video",
    "thanks for listening",
    "thank you for watching",
    "thank you for watching this video",
    "thank you so much for watching",
    "thank you very much for watching",
    "thank you for listening",
    "please subscribe",
    "please subscribe to * channel",
    "please like and subscribe",
    "like and subscribe",
    "don't forget to like and subscribe",
    "don't forget to subscribe",
    "see you in the next video",
    "I'll see you in the next video",
    "see you next time",
    # subtitlers in English and elsewhere
    "subtitles by *",
    "subtitled by *",
    "captions by *",
    "captioned by *",
    "captioning by *",
    "transcribed by *",
    "transcription by *",
    "translated by *",
    "* amara.org *",
)
"""Whole sentences; `*` stands for up to 40 characters. Case, spaces and punctuation do not count."""

THANKS: Final = ("thank you", "thank you very much", "thank you so much", "감사합니다", "고맙습니다")
"""Likewise, over less than `BRIEF_S` of speech: Whisper base wrote them for 0.2-0.5 s that were cut out of a word."""
BRIEF_S: Final = 0.5

_ANYTHING: Final = ".{0,40}"
_IGNORED: Final = re.compile(r"[\W_]+")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?…。])\s+")


def _plain(text: str) -> str:
    return _IGNORED.sub("", text.casefold())


_HALLUCINATED: Final = re.compile("|".join(_ANYTHING.join(map(_plain, phrase.split("*"))) for phrase in PHRASES))
_THANKS: Final = frozenset(map(_plain, THANKS))


def is_hallucinated_phrase(sentence: str) -> bool:
    """Return whether the whole of `sentence` is one of `PHRASES`."""
    return _HALLUCINATED.fullmatch(_plain(sentence)) is not None


def without_hallucinated_phrases(text: str, *, speech_s: float = math.inf) -> str:
    """Return `text` without those of its sentences that are hallucinated phrases, for `speech_s` seconds of speech."""
    if speech_s < BRIEF_S and _plain(text) in _THANKS:
        return ""
    return " ".join(sentence for sentence in _SENTENCE_END.split(text) if not is_hallucinated_phrase(sentence))
