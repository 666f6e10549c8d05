"""Each stage by itself, through our engines: what it takes for a talk, warm, with one caller.

A stage imports its engine inside its function, since a machine may lack what one of them needs. Knows nothing of the
table. What engines with random weights answer means nothing: each stage hears the talk's script (scripted_talk.py).
"""

from __future__ import annotations

import os
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from deployments.types import join_tracks, pieces
from tests.benchmarks import random_models
from tests.benchmarks.gpu_plan import Meter, Plan, Row, Watched
from tests.benchmarks.scripted_talk import LANGUAGE, VOICES, heard, scripted_talk

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from deployments.aligner.protocol import WordAligner
    from deployments.diarizer.protocol import DiarizerEngine, Embeddings
    from deployments.emotion.protocol import EmotionEngine
    from deployments.speech_detector.protocol import SpeechEngine
    from deployments.transcriber.protocol import Recognizer
    from tests.benchmarks.scripted_talk import Talk

FULL: Final = "float32"
"""What torch computes in where no setting says otherwise."""
PROSODY_PIECE_S: Final = 300.0
"""As in serve_app/pipeline/pipeline.py, which imports Ray."""
COMPARED_S: Final = 1200.0
"""`whisperx.align` gets no more than this: it takes minutes for an hour."""
WARM_S: Final = 20.0
VOICE_NOISE: Final = 0.5
"""Of the vectors of one voice around their centre, each of whose components is about 1."""


def recognizer(plan: Plan) -> tuple[Recognizer, Any]:
    """The recogniser and its settings. It writes as many tokens as `plan.sizes` says, once, and all are kept."""
    from deployments.hallucinations.config import HallucinationThresholds
    from deployments.transcriber.config import TranscriberConfig
    from deployments.transcriber.registry import create

    believing = HallucinationThresholds(compression_ratio=1e9, average_logprob=-1e9, no_speech=1.0, temperatures=())
    config = TranscriberConfig(**plan.settings("transcriber") | {"model": plan.model("whisper"), "guard": believing})
    engine: Any = create(config)
    loaded = engine._model._model
    loaded.model = FixedLength(loaded.model, plan.sizes.tokens)
    return engine, config


class FixedLength:
    """A CTranslate2 model whose texts end after so many tokens: random weights never end one."""

    def __init__(self, model: Any, tokens: int) -> None:
        self._model = model
        self._tokens = tokens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, *args: Any, **options: Any) -> Any:
        """CTranslate2's own; half of `max_length` is for the text."""
        return self._model.generate(*args, max_length=2 * self._tokens, **options)


def detector(plan: Plan) -> tuple[SpeechEngine, Any]:
    """The speech detector and its settings, on random weights: the real ones are in the whisperx package."""
    from deployments.speech_detector import network
    from deployments.speech_detector.config import SpeechDetectorConfig
    from deployments.speech_detector.registry import create

    network.load_network = random_models.detector
    config = SpeechDetectorConfig(**plan.settings("speech_detector"))
    return create(config), config


def aligner(plan: Plan) -> tuple[WordAligner, Any]:
    from deployments.aligner.config import AlignerConfig
    from deployments.aligner.registry import create

    model = {LANGUAGE: plan.model("aligner")}
    config = AlignerConfig(**plan.settings("aligner") | {"models": model, "preload": (LANGUAGE,)})
    return create(config), config


def diarizer(plan: Plan) -> tuple[DiarizerEngine, Any]:
    from deployments.diarizer.config import DiarizerConfig
    from deployments.diarizer.registry import create

    config = DiarizerConfig(**plan.settings("diarizer") | {"model": plan.model("diarizer")})
    return create(config), config


def emotion(plan: Plan) -> tuple[EmotionEngine, Any]:
    """The emotion analyser and its settings."""
    from deployments.emotion.config import EmotionConfig
    from deployments.emotion.registry import create

    config = EmotionConfig(**plan.settings("emotion") | {"model": plan.model("emotion")})
    return create(config), config


ENGINES: Final = {
    "detection": detector,
    "transcription": recognizer,
    "alignment": aligner,
    "diarization": diarizer,
    "emotion": emotion,
}
"""What loads each, and gives its settings. Prosody has no model."""


def measure_detection(plan: Plan, talk: Talk, meter: Meter) -> list[Row]:
    """Piece after piece."""
    from deployments.speech_detector.config import PIECE_S
    from deployments.speech_detector.network import BATCH

    engine, config = detector(plan)

    def detect(spoken: Talk) -> None:
        for piece in pieces(spoken.duration_s, PIECE_S):
            engine.detect(spoken.audio, piece)

    watched = warm_and_watch(detect, talk, meter)
    return [row("speech detection", talk, watched, FULL, f"{BATCH} windows", note=f"on {config.device}")]


def measure_transcription(plan: Plan, talk: Talk, meter: Meter) -> list[Row]:
    """Batch after batch."""
    from deployments.transcriber.protocol import Chunk

    engine, config = recognizer(plan)

    def transcribe(spoken: Talk) -> None:
        chunks = [
            Chunk(audio=chunk.of(spoken.audio), start_s=chunk.start_s, language=LANGUAGE) for chunk in spoken.chunks
        ]
        for first in range(0, len(chunks), config.batch_size):
            raise_first(engine.transcribe(chunks[first : first + config.batch_size]))

    watched = warm_and_watch(transcribe, talk, meter)
    arithmetic: str = engine._model._model.model.compute_type  # type: ignore[attr-defined]
    batch = f"{config.batch_size} chunks, {config.beam_size} beams"
    return [row("transcription", talk, watched, arithmetic, batch, note=f"{plan.sizes.tokens} tokens per chunk")]


def measure_alignment(plan: Plan, talk: Talk, meter: Meter) -> list[Row]:
    """As many chunks at a time as a replica takes."""
    from deployments.aligner.acoustic import AcousticModel
    from deployments.aligner.protocol import AlignItem

    engine, config = aligner(plan)
    inside_s = 0.0
    emissions = AcousticModel.emissions

    def timed(*args: Any) -> Any:
        nonlocal inside_s
        began_s = time.perf_counter()
        answers = emissions(*args)
        inside_s += time.perf_counter() - began_s
        return answers

    def align(spoken: Talk) -> None:
        nonlocal inside_s
        inside_s = 0.0
        items = [AlignItem(audio=spoken.audio, transcript=heard(chunk)) for chunk in spoken.chunks]
        for first in range(0, len(items), config.batch_items):
            raise_first(engine.align(items[first : first + config.batch_items]))

    AcousticModel.emissions = timed  # type: ignore[method-assign]
    watched = warm_and_watch(align, talk, meter)
    batch = f"{config.batch_items} chunks, {config.batch_s:g} s"
    return [row("alignment", talk, watched, FULL, batch, note=f"acoustic model {inside_s:.2f} s of it")]


def measure_whisperx_alignment(plan: Plan, talk: Talk, meter: Meter) -> list[Row]:
    """`whisperx.align` on the same model, as its own command line calls it: all segments in one call."""
    os.environ["NLTK_DATA"] = str(random_models.SMALL_MODELS / "nltk_data")
    import whisperx

    network, metadata = whisperx.load_align_model(LANGUAGE, plan.device, model_name=plan.model("aligner"))
    network.eval()

    def align(spoken: Talk) -> None:
        segments = [{"text": chunk.text, "start": chunk.start_s, "end": chunk.end_s} for chunk in spoken.chunks]
        samples = spoken.audio.astype(np.float32) / 2**15
        whisperx.align(segments, network, metadata, samples, plan.device)

    part = talk if talk.duration_s <= COMPARED_S else scripted_talk(COMPARED_S)
    watched = warm_and_watch(align, part, meter)
    return [row("whisperx.align", part, watched, FULL, "1 chunk", note=f"{part.duration_s / 60:g} min")]


def measure_diarization(plan: Plan, talk: Talk, meter: Meter) -> list[Row]:
    """Its three steps, one after the other."""
    from deployments.diarizer.config import PIECE_S

    engine, config = diarizer(plan)
    warm = scripted_talk(min(WARM_S, talk.duration_s))
    for piece in pieces(warm.duration_s, PIECE_S):
        engine.embed(warm.audio, engine.segment(warm.audio, piece))
    with meter.watch() as segmenting:
        segmentations = [engine.segment(talk.audio, piece) for piece in pieces(talk.duration_s, PIECE_S)]
    with meter.watch() as embedding:
        embeddings = [engine.embed(talk.audio, segmentation) for segmentation in segmentations]
    spoken = voices(embeddings)
    with meter.watch() as clustering:
        engine.cluster(segmentations, spoken)
    windows = sum(len(each.scores) for each in segmentations)
    heard_windows = sum(int(np.isfinite(each.vectors).any(axis=(1, 2)).sum()) for each in embeddings)
    return [
        row("diarization: segment", talk, segmenting, FULL, f"{config.segmentation_batch_size} windows"),
        row(
            "diarization: embed",
            talk,
            embedding,
            FULL,
            f"{config.embedding_batch_size} windows",
            note=f"{heard_windows} of {windows} windows are not silent",
        ),
        row("diarization: cluster", talk, clustering, FULL, "", note="on the CPU"),
    ]


def voices(embeddings: list[Embeddings]) -> list[Embeddings]:
    """Vectors of `VOICES` voices in place of what random weights heard, in which there is nothing to be found."""
    from deployments.diarizer.protocol import Embeddings

    draw = np.random.default_rng(0)
    dimension = embeddings[0].vectors.shape[2]
    centres = draw.normal(size=(VOICES, dimension))

    def spoken(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        windows, speakers, _ = vectors.shape
        order = draw.permuted(np.tile(np.arange(speakers) % VOICES, (windows, 1)), axis=1)
        made = centres[order] + VOICE_NOISE * draw.normal(size=vectors.shape)
        return np.where(np.isnan(vectors), np.nan, made).astype(np.float32)

    return [Embeddings(first_window=each.first_window, vectors=spoken(each.vectors)) for each in embeddings]


def measure_prosody(plan: Plan, talk: Talk, meter: Meter) -> list[Row]:
    """Tracks piece after piece, and every word's part of them."""
    from deployments.prosody.config import ProsodyConfig
    from deployments.prosody.registry import create
    from deployments.prosody.words import measure

    engine = create(ProsodyConfig(**plan.settings("prosody")))

    def track(spoken: Talk) -> None:
        parts = [engine.tracks(spoken.audio, piece) for piece in pieces(spoken.duration_s, PROSODY_PIECE_S)]
        measure(join_tracks(parts), spoken.segments)

    watched = warm_and_watch(track, talk, meter)
    return [row("prosody", talk, watched, FULL, "", note="one core")]


def measure_emotion(plan: Plan, talk: Talk, meter: Meter) -> list[Row]:
    """Part after part of the segments."""
    from deployments.emotion.config import parts
    from deployments.emotion.protocol import analyze

    engine, config = emotion(plan)

    def judge_all(spoken: Talk) -> None:
        for part in parts(config, spoken.segments):
            analyze(engine, spoken.audio, None, part)  # a classifier needs no tracks

    watched = warm_and_watch(judge_all, talk, meter)
    note = f"{len(talk.segments)} segments"
    return [row("emotion", talk, watched, FULL, f"{config.batch_size} windows", note=note)]


def warm_and_watch(work: Callable[[Talk], None], talk: Talk, meter: Meter) -> Watched:
    """`work` on a short talk, so that what is done once is done, then on the whole under the clock."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        work(scripted_talk(min(WARM_S, talk.duration_s)))
        with meter.watch() as watched:
            work(talk)
    return watched


def row(stage: str, talk: Talk, watched: Watched, precision: str, batch: str, *, note: str = "") -> Row:
    """A row of what was measured."""
    return Row(
        stage=stage,
        precision=precision,
        batch=batch,
        seconds=watched.seconds,
        audio_s=talk.duration_s,
        peak_mb=watched.peak_mb,
        note=note,
    )


def raise_first(answers: list[Any]) -> None:
    """The first failure among `answers`, if any."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
