"""Whisper on CTranslate2: loading, features, encoder, languages, decoder, tokens, attention. Knows no chunks or jobs.

The model is loaded by faster-whisper's `WhisperModel`, the base class of whisperX's own, whose import costs 5 s and
860 MB (pyannote, lightning) and whose addition allows only one prompt per batch. Computations call CTranslate2 itself,
with a prompt per item.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tiktoken import Encoding

from deployments.errors import ModelLoadError
from deployments.hallucinations.hypotheses import Hypothesis
from deployments.transcriber.attention import Attended, Tokenized
from deployments.transcriber.config import EVERY_MODELS
from deployments.transcriber.vocabulary import TextBefore, text_before
from deployments.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from deployments.transcriber.config import TranscriberConfig
    from deployments.types import Audio

WINDOW_S: Final = 30.0
"""Length of the input that the model was trained with; shorter audio is padded with silence."""
SHORT_WINDOW_S: Final = 20.0
"""The same for chunks that leave at least `LEAST_SILENCE_S` of it free, on a CPU: in 0.4 of the encoder's time."""
LEAST_SILENCE_S: Final = 3.0
FRAMES_PER_S: Final = 100
"""Frames of the spectrum."""
SILENCE_SAMPLES: Final = 400
"""One window of the spectrum. What lies further after the audio's end is silence and is not computed."""
HYPOTHESES: Final = 5
"""Texts that are sampled per chunk at temperatures above 0; the likeliest is used. Whisper's `best_of`."""

ATTENTION_STEP_S: Final = WINDOW_S / 1500
"""Time step of the encoder, and so of the decoder's attention."""
LONGEST_TEXT: Final = 448
"""Most tokens of the decoder, prompt and end of text included."""

PRE_TOKENS: Final = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""GPT-2's pattern, which Whisper uses, too: no token crosses these borders."""
REPLACEMENT: Final = "\ufffd"
"""Decoded for a letter whose last bytes are missing: Korean letters may take several tokens."""


class Whisper:
    """A loaded model without state between calls. Safe to call from several threads."""

    def __init__(self, config: TranscriberConfig) -> None:
        self.device = pick_device(config.device)
        self._model: Any = load(config, self.device)
        self._multilingual: bool = self._model.model.is_multilingual
        self._beam_size = config.beam_size
        self._end: int = self._model.hf_tokenizer.token_to_id("<|endoftext|>")
        self._encoding = encoding_of(self._model.hf_tokenizer, self._end)
        if self.device == "cuda":  # missing libraries show only when something is computed
            self._check_gpu(config.device)

    def _check_gpu(self, wanted: str) -> None:
        """Transcribe silence. Raises ModelLoadError where the GPU that CTranslate2 found does not compute."""
        try:
            silence = self.encode([self.features(np.zeros(0, np.int16))])
            self.write(silence, [self.prompt("en")])
        except RuntimeError as error:
            sentence = f"transcriber.device is {wanted}, but CTranslate2 cannot compute on the GPU here: {error}"
            raise ModelLoadError(sentence) from None

    def window_s(self, samples: int) -> float:
        """Return the length of the input for a chunk of so many samples.

        Less silence behind the chunk costs words; with one short length for all, most chunks of a batch are alike. A
        GPU encodes 30 s in milliseconds.
        """
        short = self.device == "cpu" and samples <= (SHORT_WINDOW_S - LEAST_SILENCE_S) * SAMPLE_RATE_HZ
        return SHORT_WINDOW_S if short else WINDOW_S

    def features(self, audio: Audio, window_s: float = WINDOW_S) -> NDArray[np.float32]:
        """Return the log-mel spectrum of `audio`, padded with silence to `window_s`: shape (mels, frames), float32.

        It equals the spectrum of the audio padded with zeros, as Whisper was trained, but only the audio is computed:
        silence lies at the floor of the logarithm (scaled by 1/4), 8 below the maximum or at -10. With a window of 7 s
        instead of 30 s the encoder takes a tenth of its time.
        """
        spectrum: NDArray[np.float32] = self._model.feature_extractor(
            audio.astype(np.float32) / 32768, padding=SILENCE_SAMPLES
        )
        floor = max(-1.5, float(spectrum.max()) - 2.0)
        filled = np.full((len(spectrum), round(window_s * FRAMES_PER_S)), floor, np.float32)
        frames = min(spectrum.shape[1], filled.shape[1])
        filled[:, :frames] = spectrum[:, :frames]
        return filled

    def encode(self, features: Sequence[NDArray[np.float32]]) -> Any:
        """Return the encoder's output for several spectra of one length.

        It is CTranslate2's storage, shape (items, steps, width). A CPU computes them one after the other:
        together they take it 15 to 20 % longer, probably since their attention does not fit into its caches.
        """
        if self.device != "cpu" or len(features) == 1:
            return self._model.encode(np.stack(features))
        import ctranslate2

        items = [_readable(self._model.encode(spectrum[np.newaxis])) for spectrum in features]
        return ctranslate2.StorageView.from_array(np.concatenate(items))

    @staticmethod
    def chosen(encoded: Any, items: Sequence[int]) -> Any:
        """Return `items` of `encoded`, in that order: the same storage where these are all, else a copy on the host.

        A storage cannot be sliced, and numpy cannot read a GPU's memory. CTranslate2 moves its input to the model's
        device and type by itself (faster-whisper relies on it for several GPUs). An item of the largest model has
        3.8 MB.
        """
        if list(items) == list(range(encoded.shape[0])):
            return encoded
        import ctranslate2

        host = _readable(encoded.to_device(ctranslate2.Device.cpu))
        return ctranslate2.StorageView.from_array(np.ascontiguousarray(host[list(items)]))

    def languages(self, encoded: Any) -> list[dict[str, float]]:
        """Return per item the probability of each language that the model knows."""
        if not self._multilingual:
            return [{"en": 1.0} for _ in range(encoded.shape[0])]
        found = self._model.model.detect_language(encoded)
        return [{token[2:-2]: float(probability) for token, probability in item} for item in found]

    def prompt(self, language: str) -> list[int]:
        """Return the prompt for a transcript in `language`. Raises ValueError where the model does not know it."""
        token = self._model.hf_tokenizer.token_to_id
        asked = [token(f"<|{language}|>"), token("<|transcribe|>")]
        if not self._multilingual:  # English models have tokens for languages, but were not trained with them
            asked = [] if language == "en" else [None]
        if language not in EVERY_MODELS or None in asked:
            raise ValueError(f"the model does not know the language {language!r}")
        return [token("<|startoftranscript|>"), *asked, token("<|notimestamps|>")]

    def text_before(self, vocabulary: Sequence[str]) -> TextBefore:
        """Return the tokens that come before a prompt and tell the terms of `vocabulary`; none without a vocabulary."""
        found = text_before(vocabulary, self._encoding.encode_ordinary)
        begin: int = self._model.hf_tokenizer.token_to_id("<|startofprev|>")
        return replace(found, ids=(begin, *found.ids)) if found.ids else found

    def write(self, encoded: Any, prompts: list[list[int]], *, temperature: float = 0.0) -> list[Hypothesis]:
        """Return the decoder's text for each item after its prompt: by beam search, or sampled above temperature 0.

        Prompts of one length share a call: CTranslate2 wants the start of the transcript at one place in all of them.
        """
        numbers = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        written: dict[int, Hypothesis] = {}
        for _, group in groupby(numbers, key=lambda number: len(prompts[number])):
            alike = list(group)
            asked = [prompts[number] for number in alike]
            found = self._write_alike(self.chosen(encoded, alike), asked, temperature)
            written |= zip(alike, found, strict=True)
        return [written[number] for number in range(len(prompts))]

    def _write_alike(self, encoded: Any, prompts: list[list[int]], temperature: float) -> list[Hypothesis]:
        """Return the texts after prompts of one length.

        CTranslate2 samples with a generator of its own, so that texts of temperatures above 0 cannot be reproduced.
        """
        search: dict[str, float] = {"beam_size": self._beam_size}
        if temperature > 0:
            drawing = {"num_hypotheses": HYPOTHESES, "sampling_topk": 0, "sampling_temperature": temperature}
            search = {"beam_size": 1, **drawing}
        results = self._model.model.generate(encoded, prompts, return_scores=True, return_no_speech_prob=True, **search)
        return [self._hypothesis(result, temperature) for result in results]

    def tokenized(self, text: str, *, spaced: bool) -> Tokenized:
        """`text` as the decoder would write it: after a space where its language has `spaced` words."""
        return tokenized(f" {text}" if spaced else text, self._encoding)

    def attend(
        self, encoded: Any, prompt: list[int], texts: Sequence[Tokenized], durations_s: Sequence[float]
    ) -> list[Attended]:
        """Return the decoder's attention at each token of each item's text, which follow the common `prompt`.

        The attention heads are those that the model's config.json names; CTranslate2 finds the path through their
        weights by dynamic time warping, as openai/whisper's timing.py does. Raises ValueError where a text is empty or
        too long.
        """
        if any(not 0 < len(text.ids) <= LONGEST_TEXT - len(prompt) - 1 for text in texts):
            raise ValueError("a text is empty, or longer than the decoder can take")
        frames = [round(min(duration_s, WINDOW_S) * FRAMES_PER_S) for duration_s in durations_s]
        start, tokens = prompt[:-1], [list(text.ids) for text in texts]  # <|notimestamps|> is added by `align`
        results = self._model.model.align(encoded, start, tokens, frames)
        return [_attended(result, len(text)) for result, text in zip(results, tokens, strict=True)]

    def _hypothesis(self, result: Any, temperature: float) -> Hypothesis:
        tokens = result.sequences_ids[0]
        text = self._model.hf_tokenizer.decode([token for token in tokens if token < self._end])
        return Hypothesis(
            text=text.replace(REPLACEMENT, "").strip(),
            # The score is a mean over the tokens; Whisper's own mean counts the end of the text as one more.
            average_logprob=result.scores[0] * len(tokens) / (len(tokens) + 1),
            no_speech=result.no_speech_prob,
            temperature=temperature,
        )


def _readable(encoded: Any) -> NDArray[Any]:
    """Return a storage in the CPU's memory as an array."""
    import ctranslate2

    if encoded.dtype == ctranslate2.DataType.bfloat16:  # which numpy does not know
        encoded = encoded.to(ctranslate2.DataType.float32)
    return np.asarray(encoded)


def _attended(result: Any, tokens: int) -> Attended:
    """Return each token's first step on CTranslate2's path, whose pairs are token and step."""
    path = np.array(result.alignments, np.intp).reshape(-1, 2)
    first = np.searchsorted(path[:, 0], np.arange(tokens + 1))
    starts_s = path[np.minimum(first, len(path) - 1), 1] * ATTENTION_STEP_S
    return Attended(starts_s=starts_s, probabilities=np.array(result.text_token_probs[:tokens]))


def encoding_of(tokenizer: Any, end: int) -> Encoding:
    """Return the encoding with the vocabulary of a `tokenizers.Tokenizer`. Tokens of text have ids below `end`.

    The tokenizer.json of Systran's conversions lacks the merge of a space with `t`, and so splits ` there` into ` ` and
    `there`, which the decoder never writes and gives a probability near 0. So only its vocabulary is used, as in
    openai/whisper's tokenizer.py: of two merges the one with the lower id comes first.
    """
    byte_of = _bytes_by_sign()
    vocabulary = tokenizer.get_vocab(with_added_tokens=False).items()
    ranks = {bytes(byte_of[sign] for sign in token): number for token, number in vocabulary if number < end}
    return Encoding("whisper", pat_str=PRE_TOKENS, mergeable_ranks=ranks, special_tokens={})


def tokenized(text: str, encoding: Encoding) -> Tokenized:
    """Split `text` into tokens, with the characters that each of them writes."""
    ids = encoding.encode_ordinary(text)
    character_of = [at for at, character in enumerate(text) for _ in character.encode()]
    edges = pairwise(accumulate((len(encoding.decode_single_token_bytes(token)) for token in ids), initial=0))
    offsets = tuple((character_of[start], character_of[end - 1] + 1) for start, end in edges)
    return Tokenized(text=text, ids=tuple(ids), offsets=offsets)


def _bytes_by_sign() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for: GPT-2's table."""
    shown: Sequence[int] = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = (byte for byte in range(256) if byte not in shown)
    return {chr(byte): byte for byte in shown} | {chr(256 + number): byte for number, byte in enumerate(hidden)}


def pick_device(wanted: str) -> str:
    """Return `cpu` or `cuda`. Raises ModelLoadError where a GPU is wanted and CTranslate2 finds none."""
    import ctranslate2

    try:
        found = ctranslate2.get_cuda_device_count()
    except RuntimeError:  # a driver that does not answer
        found = 0
    if wanted == "cuda" and not found:
        raise ModelLoadError("transcriber.device is cuda, but there is no CUDA device here that CTranslate2 can use")
    if wanted == "auto":
        return "cuda" if found else "cpu"
    return wanted


def load(config: TranscriberConfig, device: str) -> Any:
    """Load the `faster_whisper.WhisperModel` that `config` names. Raises ModelLoadError with the reason."""
    from faster_whisper import WhisperModel

    name = f"the Whisper model {config.model!r}"
    folder = Path(config.model)
    if folder.is_dir() and not (folder / "tokenizer.json").is_file():
        # faster-whisper would fetch the tokenizer of another model from the hub.
        raise ModelLoadError(f"{name} is incomplete: tokenizer.json is missing")
    try:
        model = WhisperModel(
            config.model,
            device=device,
            compute_type=compute_type(config.compute_type, device),
            cpu_threads=config.threads or 0,
            local_files_only=True,
        )
    except Exception as error:
        raise ModelLoadError(f"{name} cannot be loaded on {device} ({type(error).__name__}: {error})") from error
    mels = model.feature_extractor.mel_filters.shape[0]
    if mels != model.model.n_mels:
        raise ModelLoadError(
            f"{name} is incomplete: it hears {model.model.n_mels} bands and preprocessor_config.json gives {mels}"
        )
    return model


def compute_type(wanted: str, device: str) -> str:
    """Return CTranslate2's compute type for `wanted`."""
    return {"cuda": "float16", "cpu": "int8"}[device] if wanted == "auto" else wanted
