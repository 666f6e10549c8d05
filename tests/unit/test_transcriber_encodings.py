"""Chunks whose language was detected are not encoded again to be transcribed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from deployments.transcriber import encodings as encodings_module
from deployments.transcriber.encodings import Encodings
from deployments.transcriber.passages import planned_chunks
from deployments.types import Span
from serve_app.pipeline.languages import plan_languages

if TYPE_CHECKING:
    import pytest


class Encoder:
    """Doubles spectra, and remembers how many it was given at a time."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, features: Any) -> Any:
        import ctranslate2

        self.batches.append(len(features))
        return ctranslate2.StorageView.from_array(np.stack([2 * each for each in features]))


def spectra(*values: float) -> list[Any]:
    return [np.full((2, 3), value, np.float32) for value in values]


def of(encoded: Any) -> list[float]:
    return [float(each[0, 0]) for each in np.asarray(encoded)]


def test_what_is_kept_is_encoded_once_and_others_beside_it():
    encoder = Encoder()
    encodings = Encodings(encoder, keeps=True)
    assert of(encodings.keep(spectra(1, 2))) == [2, 4]
    assert of(encodings.take(spectra(3, 2, 4, 1))) == [6, 4, 8, 2]
    assert encoder.batches == [2, 2]
    assert of(encodings.take(spectra(2))) == [4]
    assert encoder.batches == [2, 2, 1], "taken once, it is gone"


def test_where_all_are_kept_nothing_is_encoded():
    encoder = Encoder()
    encodings = Encodings(encoder, keeps=True)
    encodings.keep(spectra(1, 2))
    assert of(encodings.take(spectra(2, 1))) == [4, 2]
    assert encoder.batches == [2]


def test_what_is_kept_is_bounded_and_the_oldest_goes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encodings_module, "MOST_KEPT", 2)
    encoder = Encoder()
    encodings = Encodings(encoder, keeps=True)
    for value in (1, 2, 3):
        encodings.keep(spectra(value))
    assert of(encodings.take(spectra(2, 3))) == [4, 6]
    assert encoder.batches == [1, 1, 1]
    assert of(encodings.take(spectra(1))) == [2]
    assert encoder.batches == [1, 1, 1, 1]


def test_what_nobody_asks_for_goes_with_the_next_job(monkeypatch: pytest.MonkeyPatch):
    """Its job may have ended, or another replica has transcribed it."""
    encoder = Encoder()
    encodings = Encodings(encoder, keeps=True)
    encodings.keep(spectra(1))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 601)
    encodings.keep(spectra(2))
    assert len(encodings._kept) == 1
    encodings.take(spectra(1))
    assert encoder.batches == [1, 1, 1]


def test_what_is_kept_again_is_the_newest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encodings_module, "MOST_KEPT", 2)
    encoder = Encoder()
    encodings = Encodings(encoder, keeps=True)
    for value in (1, 2, 1, 3):
        encodings.keep(spectra(value))
    encodings.take(spectra(1, 3))
    assert encoder.batches == [1, 1, 1, 1]


def test_nothing_is_kept_where_it_costs_more_than_it_saves():
    encoder = Encoder()
    encodings = Encodings(encoder, keeps=False)
    encodings.keep(spectra(1))
    encodings.take(spectra(1))
    assert encoder.batches == [1, 1]


async def test_what_is_asked_with_care_is_what_is_transcribed():
    """Sample by sample, margins included, in the main language and in others: only so is it encoded once."""
    speech = [Span(start_s=at + 0.1, end_s=at + 9.0) for at in range(1, 300, 10)]
    asked: list[Span] = []

    async def detect(spans: Any, *, brief: bool) -> list[dict[str, float]]:
        asked.extend([] if brief else spans)
        return [{"en": 0.99, "ko": 0.01} if span.start_s < 200 else {"ko": 0.99, "en": 0.01} for span in spans]

    plan = await plan_languages(speech, 30.0, detect)
    assert plan is not None
    assert [each.language for each in plan.passages] == ["en", "ko"]
    planned = planned_chunks(plan.passages, speech, 30.0)
    assert len(asked) == 5 + 1
    assert set(asked) <= set(planned.values())
    assert not set(asked) & set(planned), "with margins, which the chunks of bare speech lack"
