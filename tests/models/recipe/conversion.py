"""From a trained network to the folder that faster-whisper loads: transformers' form, then CTranslate2's int8."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tests.models.recipe.tokens import END, NO_SPEECH, NO_TIMESTAMPS, START, TRANSCRIBE, TrainedTokens
from tests.models.recipe.whisper import widened

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import GenerationConfig, WhisperForConditionalGeneration

TOKENIZER, FEATURES = "tokenizer.json", "preprocessor_config.json"


def convert(model: WhisperForConditionalGeneration, tokenizer: Tokenizer, out: Path) -> None:
    """Write `out` anew."""
    import ctranslate2
    from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

    numbers = torch.from_numpy(TrainedTokens(tokenizer).numbers_in_tokenizer())
    wide = widened(model, tokenizer.get_vocab_size(), numbers)
    wide.generation_config = _generation(wide, tokenizer)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wide.save_pretrained(folder)
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, **dict.fromkeys(("eos_token", "bos_token", "unk_token"), END)
        ).save_pretrained(folder)
        tokenizer.save(str(folder / TOKENIZER), pretty=False)
        WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
        converter = ctranslate2.converters.TransformersConverter(name, copy_files=[TOKENIZER, FEATURES])
        converter.convert(str(folder / "converted"), quantization="int8")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(folder / "converted", out)


def _generation(model: WhisperForConditionalGeneration, tokenizer: Tokenizer) -> GenerationConfig:
    """What the decoder may not write, and which head tells word times; also sets the ends in the model's own config."""
    from transformers import GenerationConfig

    number = tokenizer.token_to_id
    end, start = number(END), number(START)
    model.config.bos_token_id = model.config.eos_token_id = model.config.pad_token_id = end
    model.config.decoder_start_token_id = start
    others = ("<|translate|>", TRANSCRIBE, "<|startoflm|>", "<|startofprev|>", NO_SPEECH)
    return GenerationConfig(
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end),
        decoder_start_token_id=start,
        suppress_tokens=sorted([start, *map(number, others)]),
        begin_suppress_tokens=[number("Ġ"), end],
        lang_to_id={token: number(token) for token in ("<|en|>", "<|ko|>")},
        task_to_id={"transcribe": number(TRANSCRIBE), "translate": number("<|translate|>")},
        no_timestamps_token_id=number(NO_TIMESTAMPS),
        is_multilingual=True,
        max_length=448,
        alignment_heads=[[1, 0]],
    )
