from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from deployments.transcriber.config import (
    TranscriberConfig,
    detects_language,
    languages,
    model_version,
)


def test_what_the_edge_asks() -> None:
    """The default is Whisper base, in chunks of 30 s and batches of 8; it knows many languages."""
    config = TranscriberConfig()
    assert (config.max_chunk_s, config.batch_size, config.beam_size) == (30, 8, 5)
    assert (model_version(config), config.device) == ("whisperx-base", "auto")
    assert detects_language(config)
    assert not detects_language(TranscriberConfig(model="base.en"))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("base", "whisperx-base"),
        ("/models/whisper-ko/", "whisperx-whisper-ko"),
        ("models/asr", "whisperx-asr"),
        ("Systran/faster-whisper-medium", "whisperx-faster-whisper-medium"),
    ],
)
def test_the_result_names_the_model_and_not_its_place(model: str, name: str) -> None:
    """Of a path or a repository, the last part."""
    assert model_version(TranscriberConfig(engine="whisperx", model=model)) == name


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("large-v3", 100),
        ("large", 100),
        ("turbo", 100),
        ("large-v2", 99),
        ("tiny", 99),
        ("/any/folder", 99),
        ("base.en", 1),
    ],
)
def test_languages_are_the_models(model: str, count: int) -> None:
    """Whisper's 99, Cantonese from the third generation on, English alone for the English models."""
    known = languages(TranscriberConfig(engine="whisperx", model=model))
    assert len(known) == count
    assert "en" in known
    assert ("ko" in known) == (count > 1)


def test_languages_are_the_librarys() -> None:
    """The constant list is the one that faster-whisper's tokenizer has."""
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    assert languages(TranscriberConfig(model="large-v3")) == set(_LANGUAGE_CODES)


def test_asking_loads_no_model_library() -> None:
    """The HTTP edge's questions import neither the recogniser nor torch."""
    program = (
        "import sys; from deployments.transcriber.config import TranscriberConfig, languages, model_version\n"
        "config = TranscriberConfig()\n"
        "languages(config), model_version(config)\n"
        "heavy = {'torch', 'ray', 'numpy', 'ctranslate2', 'faster_whisper', 'whisperx'}\n"
        "print(heavy & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"


@pytest.mark.parametrize(
    "fields",
    [
        {"engine": "none"},
        {"max_chunk_s": 0},
        {"max_chunk_s": 31},
        {"chunk": 8},
        {"engine": "whisperx", "max_chunk_s": 31},
        {"engine": "whisperx", "device": "tpu"},
        {"engine": "whisperx", "batch_size": 0},
        {"engine": "whisperx", "guard": {"no_speech": 2}},
    ],
)
def test_wrong_settings_are_refused(fields: dict[str, object]) -> None:
    """Unknown engines and fields, and lengths that no engine takes, fail at start and not in a job."""
    with pytest.raises(ValidationError):
        TranscriberConfig.model_validate(fields)
