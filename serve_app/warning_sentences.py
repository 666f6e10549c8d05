"""The sentences of warnings in Korean and English.

The server writes them into `metadata.warnings` in its own locale; the command line and the console write them in their
reader's language, from `metadata.warning_codes`. Knows the wire format and nothing of jobs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from deployments.warnings import WarningCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deployments.errors import Locale
    from deployments.warnings import ResultWarning

SENTENCES: dict[WarningCode, dict[Locale, str]] = {
    WarningCode.AUDIO_DAMAGED: {
        "ko": "오디오 중 {seconds}초({share}%)를 디코딩하지 못했습니다.",
        "en": "{seconds} s of the audio ({share} %) could not be decoded.",
    },
    WarningCode.AUDIO_INCOMPLETE: {
        "ko": "오디오가 파일에 표시된 길이보다 {seconds}초({share}%) 모자랍니다.",
        "en": "Of the audio that the file promises, {seconds} s ({share} %) are missing.",
    },
    WarningCode.AUDIO_LONGER: {
        "ko": "오디오가 파일에 표시된 길이보다 {seconds}초 깁니다.",
        "en": "The audio is {seconds} s longer than the file says.",
    },
    WarningCode.AUDIO_GAPS: {
        "ko": "파일에 소리가 없는 곳이 {count}군데(모두 {seconds}초) 있어 무음으로 채웠습니다.",
        "en": "The file has no audio in {count} place(s), {seconds} s in all: they are silence.",
    },
    WarningCode.CLOCK_JUMPS: {
        "ko": "파일의 시계가 {count}번 건너뛰어, 시각은 건너뛴 만큼을 빼고 이어집니다.",
        "en": "The file's clock jumps {count} time(s): times go on without the jumps.",
    },
    WarningCode.AUDIO_CLIPPED: {
        "ko": "오디오 중 {seconds}초({share}%)가 너무 크게 녹음되어 잘렸습니다(클리핑).",
        "en": "{seconds} s of the audio ({share} %) are clipped: they were recorded too loud.",
    },
    WarningCode.AUDIO_SILENT: {
        "ko": "오디오 {seconds}초가 모두 무음입니다.",
        "en": "All {seconds} s of the audio are silent.",
    },
    WarningCode.CHANNELS_OPPOSED: {
        "ko": "오디오 중 {seconds}초({share}%)에서 채널의 위상이 반대여서 한쪽을 뒤집었습니다.",
        "en": "In {seconds} s of the audio ({share} %) channels are out of phase; one of them was inverted.",
    },
    WarningCode.CHANNELS_ALIKE: {
        "ko": "채널이 하나뿐이거나 모든 채널의 소리가 같아, 채널을 나누지 않고 목소리로 화자를 구분했습니다.",
        "en": "All channels have the same sound, or there is only one: speakers were told apart by their voices.",
    },
    WarningCode.TRACK_CHOSEN: {
        "ko": "오디오 트랙 {count}개 중 {track}번을 사용했습니다.",
        "en": "Of {count} audio tracks number {track} was used.",
    },
    WarningCode.LANGUAGE_UNCERTAIN: {
        "ko": "감지한 언어({language})가 확실하지 않습니다(확률 {share}%). 언어를 알면 요청에 적어 주십시오.",
        "en": "The detected language ({language}) is uncertain (probability {share} %): name it in the request if you"
        " know it.",
    },
    WarningCode.OTHER_LANGUAGE: {
        "ko": "말소리 {seconds}초({share}%)는 다른 언어({language})여서 그 언어로 인식했습니다.",
        "en": "Speech of {seconds} s ({share} %) is in another language ({language}), and was recognised in it.",
    },
    WarningCode.VOCABULARY_CUT: {
        "ko": "인식기가 받을 수 있는 길이를 넘어 용어 목록의 마지막 {count}개를 사용하지 못했습니다.",
        "en": "The last {count} term(s) of the vocabulary were left out: it is longer than the recogniser can take.",
    },
    WarningCode.SPEECH_TOO_QUIET: {
        "ko": "말소리일 수도 있는 소리 {seconds}초는 너무 작아 알아들을 수 없어 적지 않았습니다.",
        "en": "Some sound that may be speech ({seconds} s) is too quiet for words to be made out: nothing was written"
        " there.",
    },
    WarningCode.NOT_SPEECH: {
        "ko": "처음에 말소리로 여겼던 단조로운 음이나 일정한 소음 {seconds}초를 제외했습니다.",
        "en": "Tones or steady noise ({seconds} s), which were first taken for speech, were left out.",
    },
    WarningCode.SILENT_TEXT_DROPPED: {
        "ko": "아무도 말하지 않는 것으로 보이는 곳에 인식기가 쓴 텍스트를 {count}곳에서 뺐습니다."
        " 인식기가 지어낸 말일 가능성이 높습니다.",
        "en": "Text that the recogniser wrote where probably nobody speaks was left out (places: {count}):"
        " invented words are likely there.",
    },
    WarningCode.PHANTOM_DROPPED: {
        "ko": "말소리가 거의 없는 곳에서 인식기가 흔히 지어내는 문구(예: 시청해 주셔서 감사합니다)를"
        " {count}곳에서 뺐습니다.",
        "en": "Phrases that recognisers are known to invent in silence, such as thanks for watching, were left out"
        " where hardly anybody speaks (places: {count}).",
    },
    WarningCode.LOOP_CUT: {
        "ko": "인식기가 거듭 되풀이한 문구를 {count}곳에서 한 번만 남겼습니다.",
        "en": "A phrase that the recogniser repeated again and again was cut to one (places: {count}).",
    },
    WarningCode.REPEATED_TEXT_DROPPED: {
        "ko": "인식기가 여러 구간에 걸쳐 거듭 쓴, 지어낸 것으로 보이는 같은 텍스트를 {count}곳에서 뺐습니다.",
        "en": "The same text, which the recogniser wrote again and again for minutes and probably invented, was left"
        " out (places: {count}).",
    },
    WarningCode.UNHEARD_DROPPED: {
        "ko": "소리에서 찾을 수 없는 단어를 {count}곳에서 뺐습니다. 인식기가 지어낸 것으로 보입니다.",
        "en": "Text of which no word can be found in the sound was left out (places: {count}): the recogniser probably"
        " invented it.",
    },
    WarningCode.SPEECH_UNCERTAIN: {
        "ko": "말소리 {seconds}초는 알아듣기 어려웠습니다. 그곳의 단어는 불확실하며 일부는 지어낸 것일 수 있습니다.",
        "en": "Some speech ({seconds} s) was hard to understand: the words there are uncertain, and some may be"
        " invented.",
    },
    WarningCode.ALIGNER_MISSING: {
        "ko": "언어 '{language}'의 정렬 모델이 없어 말소리 {seconds}초의 단어 시각을 보간했습니다.",
        "en": "No aligner is there for language '{language}': word times are interpolated in {seconds} s of speech.",
    },
    WarningCode.ALIGNMENT_FAILED: {
        "ko": "정렬에 실패하여 말소리 {seconds}초의 단어 시각을 보간했습니다.",
        "en": "Alignment failed: word times are interpolated in {seconds} s of speech.",
    },
    WarningCode.FEWER_SPEAKERS: {
        "ko": "요청에 적힌 화자 수보다 적은 {count}명만 구분했습니다. 목소리가 서로 비슷하거나 말이 너무 적었을 수"
        " 있습니다.",
        "en": "Only {count} speaker(s) were told apart, fewer than the request says: voices may be too much alike, or"
        " somebody may say too little.",
    },
    WarningCode.DIARIZATION_FAILED: {
        "ko": "화자 식별에 실패하여 비디오 전체를 한 화자로 처리했습니다.",
        "en": "Diarization failed: the whole video is given to one speaker.",
    },
    WarningCode.PROSODY_FAILED: {
        "ko": "음량과 음높이를 측정하지 못하여 최솟값을 넣었습니다.",
        "en": "Prosody failed: volume and pitch are floor values.",
    },
    WarningCode.EMOTION_FAILED: {
        "ko": "감정 분석에 실패하여 감정이 들어 있지 않습니다.",
        "en": "Emotion analysis failed: no emotions are given.",
    },
    WarningCode.EMOTION_BY_RULES: {
        "ko": "감정은 학습된 모델이 아니라 규칙(화자 자신의 평소 음량과 음높이, 영어 단어 목록)으로"
        " 추정했습니다. 참고로만 보십시오.",
        "en": "Emotions are estimated by rules (loudness and pitch against the speaker's own norm, and a list of"
        " English words), not by a trained model: take them as hints.",
    },
    WarningCode.EMOTION_BY_VOICE: {
        "ko": "언어 '{language}'의 단어 목록이 없어 말소리 {seconds}초의 감정은 목소리만으로 판단했습니다.",
        "en": "No word list is there for language '{language}': emotions in {seconds} s of speech are judged by the"
        " voice alone.",
    },
}
"""`{…}` are the code's amounts: seconds with one decimal, shares in per cent."""

HALF_UP: Final = 1e-9
"""Added before rounding, so that 4.25 becomes 4.3 as in JavaScript's toFixed: a reader may see both."""
_AMOUNT = re.compile(r"\{(\w+)\}")


def amounts_of(code: WarningCode) -> tuple[str, ...]:
    """Return the names of the code's amounts, in the order of its English sentence."""
    return tuple(_AMOUNT.findall(SENTENCES[code]["en"]))


def sentence(warning: ResultWarning, locale: Locale) -> str:
    """Return the warning's sentence. Raises KeyError if one of its code's amounts is missing."""
    return _filled(warning.code, warning.amounts, locale)


def sentences_of(metadata: Mapping[str, Any], locale: Locale) -> list[str]:
    """Return the warnings of a result's `metadata` in the reader's language.

    A result without codes (of an earlier release) and an unknown code (of a later one) give the server's own sentence.
    `warnings` in the console's `i18n.js` does the same.
    """
    told = [str(each) for each in metadata.get("warnings") or ()]
    codes = metadata.get("warning_codes") or ()
    if len(codes) != len(told):
        return told
    return [_sentence_of(code, locale, otherwise) for code, otherwise in zip(codes, told, strict=True)]


def _sentence_of(values: Mapping[str, Any], locale: Locale, otherwise: str) -> str:
    try:
        return _filled(WarningCode(values["code"]), values, locale)
    except (KeyError, TypeError, ValueError):
        return otherwise


def _filled(code: WarningCode, amounts: Mapping[str, Any], locale: Locale) -> str:
    written = {name: _written(name, amounts[name]) for name in amounts_of(code)}
    return SENTENCES[code][locale].format_map(written)


def _written(name: str, value: Any) -> str:
    if name == "seconds":
        return f"{value + HALF_UP:.1f}"
    return f"{100 * value + HALF_UP:.0f}" if name == "share" else str(value)
