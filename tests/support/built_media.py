"""Media files that are put together at random from a click track: each packet's time is known, and so each click's."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from random import Random
from typing import TYPE_CHECKING, Any

import av
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

CLICK_S = 0.006
CLICK_HZ = 1500
LEVEL = 0.7
SPACING_S = 0.6
MARGIN_S = 0.3
"""Between a click and a joint: a codec's frame may lie across it."""
PICTURE = {"mp4": "mpeg4", "mov": "mpeg4", "matroska": "mpeg4", "mpegts": "mpeg2video", "avi": "mpeg4", "flv": "flv"}
CODECS = {
    "mp4": ("aac", "libmp3lame", "ac3"),
    "mov": ("aac", "pcm_s16le"),
    "matroska": ("aac", "libopus", "flac", "pcm_s16le", "libmp3lame", "ac3"),
    "mpegts": ("aac", "mp2", "ac3", "libmp3lame"),
    "avi": ("pcm_s16le", "mp2"),
    "flv": ("aac", "libmp3lame"),
    "wav": ("pcm_s16le",),
    "caf": ("pcm_s16le",),
    "aiff": ("pcm_s16be",),
    "ogg": ("libopus", "flac"),
    "flac": ("flac",),
    "mp3": ("libmp3lame",),
    "adts": ("aac",),
}
PRIMING_COUNTS = ("mpegts", "flv", "adts")
"""Containers that cannot tell that the first samples are an encoder's priming."""
WITH_GAPS = ("mp4", "matroska", "mpegts", "flv")
"""Containers whose packets have times of their own."""
RATES = {"libopus": (48_000,), "ac3": (48_000, 44_100), "mp2": (48_000, 44_100), "libmp3lame": (44_100, 48_000)}
USUAL_RATES = (16_000, 22_050, 44_100, 48_000)
LAYOUTS = {"libmp3lame": ("mono", "stereo"), "mp2": ("mono", "stereo"), "libopus": ("mono", "stereo")}
USUAL_LAYOUTS = ("mono", "stereo", "5.1")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Sound from one joint to the next: `at_s` is its first sample's time on the video's clock."""

    at_s: float
    seconds: float
    clicks_s: tuple[float, ...]
    """From the piece's beginning."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a file is made of."""

    container: str
    codec: str
    rate_hz: int
    layout: str
    channel: int
    """Where the clicks are; -1: in all channels."""
    pieces: tuple[Piece, ...]
    silent_tracks: int = 0
    """Tracks of silence before the one with the clicks."""

    @property
    def clicks_s(self) -> list[float]:
        """On the video's clock."""
        return [piece.at_s + click for piece in self.pieces for click in piece.clicks_s]


def draw(seed: int) -> Recipe:
    """The recipe of a seed."""
    random = Random(f"media {seed}")  # noqa: S311 - a repeatable choice
    container = random.choice(sorted(CODECS))
    codec = random.choice(CODECS[container])
    rates = (44_100,) if container == "flv" else RATES.get(codec, USUAL_RATES)
    layout = random.choice(LAYOUTS.get(codec, USUAL_LAYOUTS if container not in {"flv", "avi"} else ("mono", "stereo")))
    at_s = random.choice((0.0, round(random.uniform(0.1, 5), 3))) if container in WITH_GAPS else 0.0
    pieces = []
    for number in range(random.choice((1, 1, 2, 3)) if container in WITH_GAPS else 1):
        if number:
            at_s += random.choice((0.025, 0.06, 0.2, 1.0, 7.0, 25.0))
        piece = _piece(random, at_s)
        pieces.append(piece)
        at_s += piece.seconds
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    return Recipe(
        container=container,
        codec=codec,
        rate_hz=random.choice(rates),
        layout=layout,
        channel=random.choice((-1, *(number for number in range(channels) if number != 3))),
        pieces=tuple(pieces),
        silent_tracks=random.choice((0, 0, 1, 2)) if container in {"mp4", "matroska", "mpegts"} else 0,
    )


def _piece(random: Random, at_s: float) -> Piece:
    clicks = []
    click_s = MARGIN_S + random.random()
    for _ in range(random.randint(2, 5)):
        clicks.append(round(click_s, 3))
        click_s += SPACING_S + random.random()
    return Piece(at_s=at_s, seconds=round(clicks[-1] + MARGIN_S + 0.2, 3), clicks_s=tuple(clicks))


def sound(piece: Piece, rate_hz: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A faint noise with the clicks, each a short tone that is loudest at its place."""
    samples = 0.001 * np.random.default_rng(1).standard_normal(round(piece.seconds * rate_hz)).astype(np.float32)
    half = round(CLICK_S * rate_hz)
    times = np.arange(-half, half + 1) / rate_hz
    click = LEVEL * np.hanning(2 * half + 1) * np.cos(2 * np.pi * CLICK_HZ * times)
    for click_s in piece.clicks_s:
        middle = round(click_s * rate_hz)
        samples[middle - half : middle + half + 1] += click.astype(np.float32)
    return samples


@dataclass
class Track:
    stream: Any
    pieces: tuple[Piece, ...]
    recipe: Recipe
    silent: bool
    packets: list[Any] = field(default_factory=list)

    def encode(self) -> None:
        """Give the encoder whole frames of its own size, so that a packet's time is that of its frame."""
        rate, codec = self.recipe.rate_hz, self.stream.codec_context
        codec.open(strict=False)
        size = codec.frame_size or 1024
        for piece in self.pieces:
            mono = np.zeros(round(piece.seconds * rate), np.float32) if self.silent else sound(piece, rate)
            mono = np.pad(mono, (0, -len(mono) % size))
            for start in range(0, len(mono), size):
                frame = self._frame(mono[start : start + size])
                frame.pts = round(piece.at_s * rate) + start
                self.packets += self.stream.encode(frame)
        self.packets += self.stream.encode(None)

    def _frame(self, mono: np.ndarray[Any, np.dtype[np.float32]]) -> Any:
        codec = self.stream.codec_context
        channels = np.zeros((codec.layout.nb_channels, len(mono)), np.float32)
        channels[slice(None) if self.recipe.channel < 0 else self.recipe.channel] = mono
        kind = codec.format.name
        if kind.startswith("s16"):
            channels = np.round(channels * 32767).astype(np.int16)
        elif kind.startswith("s32"):
            channels = np.round(channels * 2147483000).astype(np.int32)
        planar = kind.endswith("p")
        samples = channels if planar else channels.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=kind, layout=codec.layout.name)
        frame.sample_rate = self.recipe.rate_hz
        frame.time_base = Fraction(1, self.recipe.rate_hz)
        return frame


def build(recipe: Recipe, path: Path) -> float:
    """Write the file. Where the container has a picture, it begins at 0 and lasts as long as the sound.

    Returns where its clock begins: before 0 where the encoder's priming is in the first packet and nothing says so.
    """
    with av.open(str(path), "w", format=recipe.container) as container:
        tracks = []
        for number in range(recipe.silent_tracks + 1):
            stream = container.add_stream(recipe.codec, rate=recipe.rate_hz, layout=recipe.layout)
            tracks.append(Track(stream, recipe.pieces, recipe, silent=number < recipe.silent_tracks))
        picture = _picture(container, recipe) if recipe.container in PICTURE else []
        for track in tracks:
            track.encode()
        packets = [packet for track in tracks for packet in track.packets] + picture
        packets.sort(key=lambda each: each.dts * each.time_base)
        begins_s = float(min(packet.pts * packet.time_base for packet in packets))
        for packet in packets:
            container.mux(packet)
    return begins_s if recipe.container in PRIMING_COUNTS else 0.0


def _picture(container: Any, recipe: Recipe) -> list[Any]:
    stream = container.add_stream(PICTURE[recipe.container], rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    last = recipe.pieces[-1]
    packets = []
    for number in range(round((last.at_s + last.seconds) * 25)):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number % 255, np.uint8), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        packets += stream.encode(frame)
    return [*packets, *stream.encode(None)]
