"""Takes out of each channel what is only heard through from another one; tells channels that are all the same sound.

A telephone line lets some of one party through into the other's channel, and a microphone hears those beside it. What
comes through is the other channel, filtered: H in Y = H X + N. The filter is found, for half a minute at a time, where
X is far louder than Y, and what it predicts is taken away (Widrow and others, "Adaptive noise cancelling: principles
and applications", 1975). Where hardly anything is left of Y, nobody speaks there: it is silence. Where the prediction
is far below Y, Y stays as it is, sample by sample. Of two microphones in one room, which hear everybody alike, nothing
is taken out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deployments.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from deployments.types import Audio

Spectra: TypeAlias = NDArray[np.complex64]
"""Shape (frames, bins)."""
Powers: TypeAlias = NDArray[np.float32]
"""Shape (frames,)."""

FRAME = 2048
"""Samples of a frame, 128 ms: the filter may be some 20 ms long."""
HOP = FRAME // 2
GROUP_S = 30.0
GROUP = round(GROUP_S * SAMPLE_RATE_HZ / HOP)
"""Frames for which there is one filter."""
WINDOW = np.hanning(FRAME + 1)[:-1].astype(np.float32)
"""Frames that overlap by half add up to what they were cut from."""
BAND = slice(round(150 * FRAME / SAMPLE_RATE_HZ), None)
"""Bins that are compared: without hum."""
SILENT_POWER = float(np.sum(WINDOW**2)) * FRAME * 1e-3
"""Of a frame's bins in all, about -90 dBFS (samples are int16)."""
LOUDER = 10**0.6
"""A channel is far louder from 6 dB on."""
LEAST_FRAMES = 12
"""Of a far louder channel, for a filter: some three quarters of a second."""
CHANCE = 3.0
"""There is crosstalk where phases agree so many times better than those of two people who talk at once: these agree as
chance will have it (Knapp and Carter, "The generalized correlation method", 1976). Loud frames count no more."""
BIN_CHANCE = 2.0
"""A bin's filter counts where it explains so many times the power that it would explain by chance."""
HEARD_SHARE = 0.1
"""Crosstalk is taken out where a frame loses at least this share of its power by it; 10 dB below it is not heard."""
LEFT_SHARE = 0.05
"""Where less is left of a frame, it was nothing but crosstalk. With 0.3, a fifth of what a party said 6 dB below the
crosstalk of the other was silenced, with this 2 %; crosstalk alone still falls by 50 dB."""
ALIKE_SHARE = 0.8
"""Channels are alike where a filter from one to the other explains this share of the power."""
ALIKE_GAIN = 10**1.2
"""Those that differ by more than 12 dB are a channel and its crosstalk."""


def loudest(channels: Audio) -> int:
    """Return the number of the channel with most power; `channels` has shape (channels, samples)."""
    return int(np.argmax([_power(channel) for channel in channels]))


def are_alike(channels: Audio, check: Callable[[], None] = lambda: None) -> bool:
    """Return whether all channels have the loudest one's sound, but for gain, a small delay and a codec's noise.

    `check` is called for each half a minute, and may raise.
    """
    powers = np.array([_power(channel) for channel in channels])
    first = int(powers.argmax())
    if powers.min() <= 0 or powers.min() * ALIKE_GAIN < powers.max():
        return False
    others = [number for number in range(len(channels)) if number != first]
    return all(_explained_share(channels[first], channels[number], check) >= ALIKE_SHARE for number in others)


def remove(channels: Audio, check: Callable[[], None] = lambda: None) -> None:
    """Take crosstalk out of `channels`, shape (channels, samples), int16, in place. `check`: as of `are_alike`."""
    filters: dict[tuple[int, int], NDArray[np.complex64]] = {}
    for start in range(0, channels.shape[1], GROUP * HOP):
        check()
        block = channels[:, start : start + GROUP * HOP]
        spectra = [_spectra(channel) for channel in block]
        powers = [_frame_powers(each) for each in spectra]
        cleaned = [_clean(number, spectra, powers, filters, channel) for number, channel in enumerate(block)]
        for number, samples in enumerate(cleaned):
            if samples is not None:
                block[number] = np.clip(np.rint(samples), -32768, 32767).astype(np.int16)


def _power(channel: Audio) -> float:
    return float(sum(np.sum(part.astype(np.float64) ** 2) for part in _parts(channel)))


def _parts(channel: Audio) -> Iterator[Audio]:
    step = GROUP * HOP
    return (channel[start : start + step] for start in range(0, len(channel), step))


def _spectra(samples: Audio) -> Spectra:
    """Return the spectra of frames that begin half a frame before the samples, and end as much behind them."""
    count = -(-len(samples) // HOP) + 1
    padded = np.zeros((count + 1) * HOP, np.float32)
    padded[HOP : HOP + len(samples)] = samples
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    return np.fft.rfft(frames * WINDOW, axis=1).astype(np.complex64)


def _explained_share(first: Audio, other: Audio, check: Callable[[], None]) -> float:
    explained = total = 0.0
    for one, two in zip(_parts(first), _parts(other), strict=True):
        check()
        x, y = _spectra(one)[:, BAND], _spectra(two)[:, BAND]
        cross = np.abs((x.conj() * y).sum(axis=0)) ** 2
        explained += float((cross / np.maximum((np.abs(x) ** 2).sum(axis=0), 1.0)).sum())
        total += float((np.abs(y) ** 2).sum())
    return explained / total if total else 0.0


def _clean(
    number: int,
    spectra: list[Spectra],
    powers: list[Powers],
    filters: dict[tuple[int, int], NDArray[np.complex64]],
    samples: Audio,
) -> NDArray[np.float32] | None:
    """Return a channel's samples without crosstalk; None where it has none. `filters` are those of the group before."""
    own, own_power = spectra[number], powers[number]
    rest = own.copy()
    below = np.zeros(len(own), bool)
    others = sorted((n for n in range(len(spectra)) if n != number), key=lambda n: -float(powers[n].sum()))
    for other in others:  # the loudest first: what came through it to the others is not taken out twice
        louder = (powers[other] > LOUDER * own_power) & (own_power > SILENT_POWER)
        found = _filter(spectra[other][louder], rest[louder])
        if found is not None:
            filters[other, number] = found
        if (other, number) in filters:
            rest -= filters[other, number] * spectra[other]
            below |= louder
    left_power = _frame_powers(rest)
    heard = left_power < (1 - HEARD_SHARE) * own_power
    if not heard.any():
        return None
    alone = below & (left_power < LEFT_SHARE * own_power)
    correction = np.where(alone[:, None], own, np.where(heard[:, None], own - rest, 0))
    return samples - _samples(correction, len(samples))


def _filter(x: Spectra, y: Spectra) -> NDArray[np.complex64] | None:
    """Return the filter, shape (bins,), from one channel to another by frames of both; None where nothing shows one."""
    if len(x) < LEAST_FRAMES:
        return None
    products = x.conj() * y
    phases = products / np.maximum(np.abs(products), 1e-3)
    if np.mean(np.abs(phases.mean(axis=0)[BAND]) ** 2) * len(x) < CHANCE:
        return None
    power = np.maximum((np.abs(x) ** 2).sum(axis=0), 1.0)
    found = products.sum(axis=0) / power
    found[np.abs(found) ** 2 * power * len(x) < BIN_CHANCE * (np.abs(y) ** 2).sum(axis=0)] = 0
    filtered: NDArray[np.complex64] = found.astype(np.complex64)
    return filtered


def _frame_powers(spectra: Spectra) -> Powers:
    band = spectra[:, BAND]
    powers: Powers = (band.real**2 + band.imag**2).sum(axis=1)
    return powers


def _samples(spectra: Spectra, count: int) -> NDArray[np.float32]:
    """Return the sum of the frames, `count` samples."""
    frames = np.fft.irfft(spectra, FRAME, axis=1).astype(np.float32)
    added = np.zeros((len(frames) + 1, HOP), np.float32)
    added[:-1] += frames[:, :HOP]
    added[1:] += frames[:, HOP:]
    return added.reshape(-1)[HOP : HOP + count]
