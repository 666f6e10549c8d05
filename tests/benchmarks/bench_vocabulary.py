"""What a job's `vocabulary` does to the text, with Whisper base: names heard, names invented, other words changed.

    python -m tests.benchmarks vocabulary

Prints markdown. Whisper base and the recordings lie where ML_SERVER_REAL_MODELS says; `SAID` is synthesized by flite
and espeak-ng, where these are there. `heard` are terms that are said and written as the vocabulary has them,
`invented` are terms that are written and not said. `own terms`: the vocabulary has all that are said, of all sentences;
`among others`: the same after fifty that nobody says. WER and CER as in bench_whisperx; of the meetings and the voices
no text is known: their words are compared with those without a vocabulary. The last table compares ways to write the
list as the text before.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final
from unittest.mock import patch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from deployments.hallucinations.config import HallucinationThresholds  # noqa: E402
from deployments.speech_detector import registry as speech_detector  # noqa: E402
from deployments.speech_detector.chunks import cut_chunks, speech_share  # noqa: E402
from deployments.speech_detector.config import SpeechDetectorConfig  # noqa: E402
from deployments.transcriber import vocabulary as vocabulary_text  # noqa: E402
from deployments.transcriber.config import MULTILINGUAL, TranscriberConfig  # noqa: E402
from deployments.transcriber.protocol import Chunk  # noqa: E402
from deployments.transcriber.whisper import WhisperRecognizer  # noqa: E402
from deployments.transcriber.whisper_model import Whisper  # noqa: E402
from deployments.types import SAMPLE_RATE_HZ, Span, Transcript  # noqa: E402
from tests.benchmarks.known_texts import Count, Recording, count, recordings  # noqa: E402
from tests.benchmarks.report import say, table  # noqa: E402
from tests.support import real_models  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from deployments.speech_detector.protocol import SpeechEngine
    from deployments.transcriber.protocol import Recognizer

SAID: Final = (
    ("Our customers run the software on Kubernetes and PostgreSQL.", ("Kubernetes", "PostgreSQL")),
    ("Please send the contract to Hyunwoo Baek before Friday.", ("Hyunwoo Baek",)),
    ("The new hospital in Daejeon has bought two Somatom scanners.", ("Daejeon", "Somatom")),
    ("We moved all queries from the old interface to GraphQL.", ("GraphQL",)),
    ("Doctor Siobhan Gallagher will open the meeting.", ("Siobhan Gallagher",)),
    ("Patients take forty milligrams of atorvastatin every evening.", ("atorvastatin",)),
    ("The train stops at Gwanghwamun and then at Jamsil.", ("Gwanghwamun", "Jamsil")),
    ("Eigenmann and Zielinski signed the agreement in Wroclaw.", ("Eigenmann", "Zielinski", "Wroclaw")),
    ("You can find the Jupyter notebook in the Bitbucket folder.", ("Jupyter", "Bitbucket")),
    ("Yesterday the Jeong family visited Seongsan.", ("Jeong", "Seongsan")),
    ("The RX450 needs a new battery.", ("RX450",)),
    ("I will ask Wojciech about the Grafana dashboard.", ("Wojciech", "Grafana")),
)
"""Sentences with names and terms, as a vocabulary would have them."""
OTHERS: Final = tuple(
    "Aisling Baldur Caoimhe Dagmar Eszter Fjodor Guangzhou Hrvoje Ieva Jaroslaw Kjetil Ljubljana Mbappe Nguyen Oisin"  # noqa: SIM905
    " Przemysl Quetzal Ragnhild Szymon Tsvetelina Ulrike Vejle Xiaoping Yggdrasil Zsofia Terraform Ansible Kafka"
    " Elasticsearch Cassandra Nginx Redis RabbitMQ Hadoop Snowflake Datadog Keycloak Istio Envoy Consul ibuprofen"
    " metformin lisinopril amlodipine omeprazole sertraline warfarin bisoprolol Zentralverband Rijksmuseum".split()
)
"""Terms that nobody says."""
OWN: Final = tuple(term for _, terms in SAID for term in terms)
VOCABULARIES: Final[dict[str, tuple[str, ...]]] = {"none": (), "own terms": OWN, "among others": OTHERS + OWN}
KOREAN_OTHERS: Final = tuple(
    "세종대로 광화문 정약용 김하늘 쿠버네티스 이순신 한국전력 서울시청 박서준 최민정 대전역 강릉".split()  # noqa: SIM905
)
KOREAN_SAID: Final = ("기차", "전기", "라디오", "영화", "얼굴")
"""Said in the Korean sentences."""
VOICES: Final = {
    "flite slt": ("flite", "-voice", "slt", "-t", "{text}", "-o", "{path}"),
    "flite rms": ("flite", "-voice", "rms", "-t", "{text}", "-o", "{path}"),
    "flite awb": ("flite", "-voice", "awb", "-t", "{text}", "-o", "{path}"),
    "espeak-ng": ("espeak-ng", "-v", "en-us", "-s", "150", "-w", "{path}", "{text}"),
}
"""Commands that say a text."""
HEAD: Final = ("synthesized names", "vocabulary", "terms said", "heard", "invented", "WER %")
FORMS: Final[dict[str, Callable[[Sequence[str]], str]]] = {
    "`A, B.`": vocabulary_text.written,
    "`Glossary: A, B.`": lambda terms: f" Glossary: {', '.join(terms)}.",
    "`A B` (faster-whisper's `hotwords`)": lambda terms: f" {' '.join(terms)}",
}
"""Ways to write a list of terms as the text before."""
FORMS_HEAD: Final = ("form", *HEAD[1:])
REAL_HEAD: Final = ("real speech", "vocabulary", "said of it", "heard", "invented", "errors %")


def main() -> None:
    folder = real_models.part("whisper-base")
    if folder is None:
        say(real_models.MISSING)
        return
    warnings.simplefilter("ignore")
    ears = loaded(folder)
    say(table(HEAD, synthesized(ears)))
    say()
    say(table(REAL_HEAD, real(ears)))
    say()
    say(table(FORMS_HEAD, forms(ears)))


class Remembering(Whisper):
    """Whisper that encodes each sound once: the vocabulary is the decoder's."""

    _encoded: ClassVar[dict[bytes, Any]] = {}

    def encode(self, features: Sequence[Any]) -> Any:
        """As `Whisper.encode` does."""
        key = b"".join(each.tobytes() for each in features)
        if key not in self._encoded:
            self._encoded[key] = super().encode(features)
        return self._encoded[key]


def loaded(folder: Path) -> WhisperRecognizer:
    """Whisper, without word times."""
    model = Remembering(TranscriberConfig(model=str(folder), device="cpu", threads=1))
    return WhisperRecognizer(model, HallucinationThresholds(), MULTILINGUAL)


def synthesized(ears: Recognizer) -> Iterator[list[object]]:
    """A row per voice and vocabulary."""
    for voice, spoken in _by_voice().items():
        for name, vocabulary in VOCABULARIES.items():
            yield [voice, name, *_scored(ears, spoken, vocabulary)]


def forms(ears: Recognizer) -> Iterator[list[object]]:
    """A row per form and vocabulary, over all voices."""
    spoken = [each for of_voice in _by_voice().values() for each in of_voice]
    for form, written in FORMS.items():
        with patch.object(vocabulary_text, "written", written):
            for name in ("own terms", "among others"):
                yield [form, name, *_scored(ears, spoken, VOCABULARIES[name])]


@cache
def _by_voice() -> dict[str, list[tuple[Recording, Sequence[str]]]]:
    """What each voice that is there says, with the terms in it."""
    with tempfile.TemporaryDirectory() as where:
        return {
            voice: [(_spoken(command, text, Path(where)), terms) for text, terms in SAID]
            for voice, command in VOICES.items()
            if shutil.which(command[0])
        }


def _scored(
    ears: Recognizer, spoken: Sequence[tuple[Recording, Sequence[str]]], vocabulary: tuple[str, ...]
) -> list[object]:
    said = heard = invented = 0
    errors = Count(errors=0, of=0)
    for recording, terms in spoken:
        text = hear(ears, recording, vocabulary)
        said += len(terms)
        heard += sum(has(text, term) for term in terms)
        invented += sum(has(text, term) for term in (*OTHERS, *vocabulary) if not has(recording.text, term))
        errors += count(recording, text)
    return [said, heard, invented, f"{100 * errors.rate:.1f}"]


def real(ears: Recognizer) -> Iterator[list[object]]:
    """A row per kind of recording and vocabulary."""
    names = ("Diane", "New Jersey", "Sheila", "Texas", "Chicago", "Yankee")
    lists = {"en": {"none": (), "terms said": names + OTHERS[:20], "others": OTHERS}}
    lists["ko"] = {"none": (), "terms said": KOREAN_SAID + KOREAN_OTHERS, "others": KOREAN_OTHERS}
    kinds: dict[str, list[Recording]] = {}
    for each in (*(each for each in recordings() if each.kind in KNOWN), *_unknown(ears)):
        kinds.setdefault(each.kind, []).append(each)
    for kind, found in kinds.items():
        for name, vocabulary in lists[found[0].language].items():
            texts = [(each, hear(ears, each, vocabulary)) for each in found]
            errors = sum((count(*each) for each in texts), Count(errors=0, of=0))
            said = [(term, text) for each, text in texts for term in vocabulary if has(each.text, term)]
            invented = [
                term for each, text in texts for term in vocabulary if has(text, term) and not has(each.text, term)
            ]
            cells = (len(said), sum(has(text, term) for term, text in said), len(invented))
            yield [kind, name, *cells, f"{100 * errors.rate:.1f}"]


KNOWN: Final = ("real, telephone", "real, read", "real, Korean (CER)")


def _unknown(ears: Recognizer) -> Iterator[Recording]:
    """The meetings and voices; their text is what is heard without a vocabulary."""
    for name in ("ami", "voices"):
        folder = real_models.part(name)
        for path in sorted(folder.glob("*.wav")) if folder else ():
            silent = Recording(
                kind=f"real, {name}", name=path.stem, language="en", text="", audio=real_models.sound(path)
            )
            yield replace(silent, text=hear(ears, silent, ()))


def hear(ears: Recognizer, recording: Recording, vocabulary: tuple[str, ...]) -> str:
    """The text of a recording, chunk by chunk as in a job."""
    found = []
    for span, share in _chunks(recording.audio.tobytes()):
        audio = span.of(recording.audio)
        audio.flags.writeable = False
        piece = Chunk(
            audio=audio,
            start_s=span.start_s,
            language=recording.language,
            speech_share=share,
            vocabulary=vocabulary,
        )
        [heard] = ears.transcribe([piece])
        assert isinstance(heard, Transcript), heard
        found += [utterance.text for utterance in heard.utterances]
    return " ".join(found)


@cache
def _chunks(samples: bytes) -> list[tuple[Span, float]]:
    """The chunks of a recording, and how much of each is speech, 0-1."""
    audio = np.frombuffer(samples, np.int16)
    speech = _detector().detect(audio, Span(start_s=0, end_s=len(audio) / SAMPLE_RATE_HZ))
    return [(chunk, speech_share(chunk, speech)) for chunk in cut_chunks(speech, 30.0)]


@cache
def _detector() -> SpeechEngine:
    return speech_detector.create(SpeechDetectorConfig())


def has(text: str, term: str) -> bool:
    """Whether `term` stands in `text`, letter by letter and not inside a longer word; Korean particles may follow."""
    behind = "" if re.search("[가-힣]", term) else r"(?!\w)"
    return re.search(rf"(?<!\w){re.escape(term)}{behind}", text) is not None


def _spoken(command: Sequence[str], text: str, where: Path) -> Recording:
    path = where / "said.wav"
    filled = [part.format(text=text, path=path) for part in command]
    subprocess.run(filled, check=True)
    return Recording(kind="synthesized", name=text, language="en", text=text, audio=real_models.sound(path))


if __name__ == "__main__":
    main()
