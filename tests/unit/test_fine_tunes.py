from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from deployments.transcriber.config import TranscriberConfig
from deployments.transcriber.whisper_model import Whisper
from tests.support.process import ROOT

TOKENIZER = ROOT / "tests" / "models" / "asr" / "tokenizer.json"
PROGRAMS = Path(sys.executable).parent
LANGUAGES = {"en": "<|en|>", "ko": "<|ko|>"}


def fine_tune(folder: Path) -> Path:
    """A Whisper of random weights, as transformers saves one."""
    tokens = Tokenizer.from_file(str(TOKENIZER))
    end = tokens.token_to_id("<|endoftext|>")
    ends = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end}
    small = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = WhisperConfig(
        vocab_size=tokens.get_vocab_size(), d_model=32, encoder_ffn_dim=32, decoder_ffn_dim=32, **small, **ends
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config.lang_to_id = {token: tokens.token_to_id(token) for token in LANGUAGES.values()}
    model.generation_config.suppress_tokens = []
    model.generation_config.begin_suppress_tokens = []
    model.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    shutil.copy(TOKENIZER, folder)
    return folder


@pytest.mark.full
def test_a_fine_tune_is_converted_pinned_and_loaded(tmp_path: Path) -> None:
    """docs/engines.md's three commands, on a model made here: what comes out knows its languages."""
    converted, lock = tmp_path / "whisper-ko", tmp_path / "lock.yaml"
    copied = ["--quantization", "float16", "--copy_files", "tokenizer.json", "preprocessor_config.json"]
    asked = [
        PROGRAMS / "ct2-transformers-converter",
        "--model",
        fine_tune(tmp_path / "tuned"),
        "--output_dir",
        converted,
        *copied,
    ]
    subprocess.run(asked, check=True, capture_output=True)
    shutil.copy(ROOT / "configs" / "models.lock.yaml", lock)
    config = str(ROOT / "configs" / "local.yaml")
    fetch = [PROGRAMS / "ml-server", "models", "fetch", "--pin", "--config", config, "--lock", lock]
    environment = os.environ | {"ML_SERVER_TRANSCRIBER__MODEL": str(converted)}
    subprocess.run(fetch, check=True, capture_output=True, env=environment)
    assert str(converted) in lock.read_text("utf-8")
    model = Whisper(TranscriberConfig(engine="whisperx", model=str(converted), device="cpu", threads=1))
    assert model.prompt("ko") != model.prompt("en")
