"""What of a file is listened to, as a job chooses it: a track, a part, each channel by itself."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from deployments.errors import AudioExtractionError, VideoTooLongError
from deployments.extraction import crosstalk, media_decoder
from deployments.extraction.config import MediaLimits
from deployments.extraction.limited_process import StoppedError
from deployments.extraction.media_decoder import extract
from deployments.extraction.protocol import Decoded, Selection
from deployments.extraction.scratch import Scratch
from deployments.types import CHANNEL_GAP_S, SAMPLE_RATE_HZ
from tests.support import sounds
from tests.support.built_media import build, draw
from tests.support.clips import run_ffmpeg
from tests.support.extractors import extractor_in
from tests.support.servers import serving, whole

if TYPE_CHECKING:
    from pathlib import Path

    from deployments.types import Audio

LIMITS = MediaLimits()
SECONDS = 6
GAP = round(CHANNEL_GAP_S * SAMPLE_RATE_HZ)
ONE, OTHER = (
    np.resize(sounds.speech(name), SECONDS * SAMPLE_RATE_HZ).astype(float) / 2**15 for name in sorted(sounds.TEXTS)[:2]
)


def decoded(path: Path, limits: MediaLimits = LIMITS, **selection: Any) -> Decoded:
    return extract(path, limits=limits, selection=Selection(**selection))


def codes(got: Decoded) -> list[str]:
    return [warning.code.value for warning in got.warnings]


def write(path: Path, *channels: np.ndarray) -> Path:
    soundfile.write(path, np.stack(channels, axis=1), SAMPLE_RATE_HZ, subtype="PCM_16")
    return path


def refusal(path: Path, **selection: Any) -> str:
    """The English sentence of the error; the Korean one is another."""
    with pytest.raises(AudioExtractionError) as caught:
        decoded(path, **selection)
    assert caught.value.sentence("ko") != caught.value.sentence("en")
    return str(caught.value)


# Tracks

TAGS = ("eng", "ko-KR", "fre", "")


@pytest.fixture(scope="module")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones of 300, 400, 500 and 600 Hz; the first is the default one."""
    path = tmp_path_factory.mktemp("tracks") / "a.mkv"
    inputs = [("-f", "lavfi", "-i", f"sine=f={300 + 100 * n}:d=1:r=16000") for n in range(len(TAGS))]
    tags = [("-map", f"{n}:a", f"-metadata:s:a:{n}", f"language={tag}") for n, tag in enumerate(TAGS)]
    run_ffmpeg(*sum(inputs + tags, ()), "-disposition:a:0", "default", "-c:a", "pcm_s16le", path)
    return path


def tone_hz(audio: Audio) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(audio)))) * SAMPLE_RATE_HZ / len(audio)


@pytest.mark.parametrize(
    ("track", "hz"), [(1, 300), (3, 500), (4, 600), ("ko", 400), ("kor", 400), ("FR", 500), ("fra", 500), ("fre", 500)]
)
def test_the_track_that_was_asked_for_is_taken(tracks: Path, track: int | str, hz: int) -> None:
    """By number or by language, whatever form the tag has; and nobody is told what he chose himself."""
    got = decoded(tracks, audio_track=track)
    assert tone_hz(got.audio) == pytest.approx(hz, abs=2)
    assert codes(got) == []


def test_a_track_that_is_not_there_is_named_with_those_that_are(tracks: Path, tmp_path: Path) -> None:
    """The job fails with how many there are, or with the languages that the file is tagged with."""
    assert refusal(tracks, audio_track=5).endswith("audio tracks in the file: 4)")
    assert refusal(tracks, audio_track="ja").endswith("tracks are tagged with: eng, fre, ko)")
    assert refusal(write(tmp_path / "a.wav", ONE), audio_track="ja").endswith("tracks are tagged with: none)")


def test_a_silent_track_that_was_asked_for_is_not_replaced(tmp_path: Path) -> None:
    """The caller's choice stands, and the result says that it is silent."""
    sources = [write(tmp_path / f"{n}.wav", sound) for n, sound in enumerate((ONE, 0 * ONE))]
    run_ffmpeg("-i", sources[0], "-i", sources[1], "-map", "0:a", "-map", "1:a", "-c:a", "flac", tmp_path / "a.mkv")
    got = decoded(tmp_path / "a.mkv", audio_track=2)
    assert not got.audio.any()
    assert codes(got) == ["AUDIO_SILENT"]


# Parts


def assert_is_the_slice(path: Path, whole_file: Decoded, start_s: float | None, end_s: float | None) -> Decoded:
    got = decoded(path, start_s=start_s, end_s=end_s)
    end = None if end_s is None else round(end_s * SAMPLE_RATE_HZ)
    expected = whole_file.audio[round((start_s or 0) * SAMPLE_RATE_HZ) : end]
    assert np.array_equal(got.audio, expected), (start_s, end_s)
    length_s = min(whole_file.duration_s, whole_file.duration_s if end_s is None else end_s) - (start_s or 0)
    assert got.duration_s == pytest.approx(length_s, abs=0.002)
    return got


@pytest.mark.parametrize("seed", range(10))
def test_a_part_is_the_same_sound_as_in_the_whole_file(tmp_path: Path, seed: int) -> None:
    """Sample by sample, in all containers, with gaps and late beginnings: times are on the video's clock."""
    path = tmp_path / "video"
    build(draw(seed), path)
    got = decoded(path)
    length_s = len(got.audio) / SAMPLE_RATE_HZ
    for start_s, end_s in ((None, 0.4 * length_s), (0.3 * length_s, 0.81 * length_s), (0.6 * length_s, None)):
        assert_is_the_slice(path, got, start_s, end_s)


@pytest.mark.parametrize(
    "options",
    [("a.mp4", "-c:a", "aac"), ("a.mp3", "-b:a", "64k"), ("a.ts", "-c:a", "mp2"), ("a.mkv", "-c:a", "libopus")],
    ids=lambda options: options[0],
)
def test_what_lies_behind_a_part_changes_nothing(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Of a minute with a picture and two rates, five seconds: the same samples, and no warning about the rest."""
    source = write(tmp_path / "a.wav", np.resize(ONE, 60 * SAMPLE_RATE_HZ), np.resize(OTHER, 60 * SAMPLE_RATE_HZ))
    path = tmp_path / options[0]
    run_ffmpeg("-i", source, "-ar", "48000" if path.suffix == ".mkv" else "44100", *options[1:], path)
    got = decoded(path)
    assert codes(assert_is_the_slice(path, got, 20.003, 25.0)) == []
    assert codes(assert_is_the_slice(path, got, 58.0, 70.0)) == []


def test_the_clock_of_a_part_has_no_jumps(tmp_path: Path) -> None:
    """What comes behind a jump lies where it lies in the whole file; only a jump inside the part is told."""
    source = write(tmp_path / "a.wav", ONE)
    for number, offset_s in enumerate((1000, 5000)):
        run_ffmpeg("-i", source, "-c:a", "mp2", "-output_ts_offset", offset_s, tmp_path / f"{number}.ts")
    path = tmp_path / "a.ts"
    path.write_bytes((tmp_path / "0.ts").read_bytes() + (tmp_path / "1.ts").read_bytes())
    got = decoded(path)
    assert codes(got) == ["CLOCK_JUMPS"]
    assert codes(assert_is_the_slice(path, got, 8.0, 11.0)) == []
    assert codes(assert_is_the_slice(path, got, 4.0, 8.0)) == ["CLOCK_JUMPS"]


def test_limits_count_the_part(tmp_path: Path) -> None:
    """A file beyond the limit is accepted where the part is not; a part beyond it is not."""
    path = write(tmp_path / "a.wav", np.resize(ONE, 20 * SAMPLE_RATE_HZ))
    limits = MediaLimits(max_duration_s=5)
    assert decoded(path, limits, start_s=12, end_s=17).duration_s == 5
    assert decoded(path, limits, start_s=16).duration_s == 4
    for part in ({}, {"start_s": 2}, {"end_s": 15}, {"start_s": 3, "end_s": 19}):
        with pytest.raises(VideoTooLongError):
            decoded(path, limits, **part)


def test_a_part_behind_the_end_is_refused_with_the_videos_length(tmp_path: Path) -> None:
    """In both languages; a picture that goes on without sound is no end, but silence."""
    assert refusal(write(tmp_path / "a.wav", ONE), start_s=6.5).endswith("the video's length in seconds: 6.0)")
    picture = ("-f", "lavfi", "-i", "testsrc2=size=160x90:rate=10:d=12", "-c:v", "mpeg4")
    run_ffmpeg("-i", tmp_path / "a.wav", *picture, "-c:a", "flac", tmp_path / "a.mkv")
    got = decoded(tmp_path / "a.mkv", start_s=8, end_s=11)
    assert (got.duration_s, len(got.audio), got.audio.any()) == (3, 3 * SAMPLE_RATE_HZ, False)
    assert codes(got) == ["AUDIO_SILENT"]


def test_warnings_are_about_the_part(tmp_path: Path) -> None:
    """Of a file that was cut off, with a gap and clipping: each part tells what is in it."""
    loud = np.where(np.arange(20 * SAMPLE_RATE_HZ) < 4 * SAMPLE_RATE_HZ, 8.0, 1.0) * np.resize(ONE, 20 * SAMPLE_RATE_HZ)
    source = write(tmp_path / "a.wav", np.clip(20 * loud, -1, 1) * (np.abs(loud) > 0))
    gap = ("-af", "aselect='not(between(t,8,10))'")
    run_ffmpeg("-i", source, *gap, "-c:a", "pcm_s16le", tmp_path / "a.mkv")
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: round(0.8 * len(content))])
    told = {part: codes(decoded(tmp_path / "cut.mkv", start_s=part[0], end_s=part[1])) for part in PARTS}
    assert told == PARTS


PARTS = {
    (0, 3): ["AUDIO_CLIPPED"],
    (7, 11): ["AUDIO_CLIPPED", "AUDIO_GAPS"],
    (11, 14): ["AUDIO_CLIPPED"],
    (11, 19): ["AUDIO_CLIPPED", "AUDIO_INCOMPLETE"],
}


# Channels


def channels_of(got: Decoded) -> list[Audio]:
    """Each channel, without the silence behind it."""
    each = got.audio.reshape(got.channels, -1)
    assert not each[:, -GAP:].any()
    return list(each[:, :-GAP])


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_channels_come_one_after_the_other(tmp_path: Path, count: int, name: str) -> None:
    """Sample by sample as they are, each with silence behind it; the length is the video's."""
    said = [np.roll(ONE, number * 7001)[: 5 * SAMPLE_RATE_HZ] for number in range(count)]
    got = decoded(write(tmp_path / name, *said), channels="separate")
    assert (got.channels, got.duration_s, codes(got)) == (count, 5, [])
    for channel, sound in zip(channels_of(got), said, strict=True):
        assert np.abs(channel - 2**15 * sound).max() <= 1


def test_channels_of_another_rate_and_a_part(tmp_path: Path) -> None:
    """44.1 kHz and AAC: each channel has its own sound only, and a part of it is the slice."""
    source = write(tmp_path / "a.wav", ONE, OTHER)
    run_ffmpeg("-i", source, "-ar", "44100", "-c:a", "aac", "-b:a", "256k", tmp_path / "a.mp4")
    got = decoded(tmp_path / "a.mp4", channels="separate")
    for channel, own, others in zip(channels_of(got), (ONE, OTHER), (OTHER, ONE), strict=True):
        assert np.corrcoef(channel[: len(own)], own[: len(channel)])[0, 1] > 0.98
        assert abs(np.corrcoef(channel[: len(own)], others[: len(channel)])[0, 1]) < 0.1
    part = decoded(tmp_path / "a.mp4", channels="separate", start_s=1.5, end_s=4)
    assert part.duration_s == 2.5
    assert [len(channel) for channel in channels_of(part)] == [2.5 * SAMPLE_RATE_HZ] * 2


@pytest.mark.parametrize(
    "other",
    [
        None,
        ONE,
        0.5 * ONE,
        -ONE,
        np.concatenate([np.zeros(80), ONE])[: len(ONE)],
        0.7 * ONE + 0.003 * np.random.default_rng(1).standard_normal(len(ONE)),
    ],
    ids=["mono", "equal", "quieter", "inverted", "delayed", "noisy"],
)
def test_channels_that_are_alike_are_one(tmp_path: Path, other: np.ndarray | None) -> None:
    """There is nothing to keep apart: the sound comes once, with a warning."""
    got = decoded(write(tmp_path / "a.wav", ONE, *([] if other is None else [other])), channels="separate")
    assert (got.channels, codes(got)) == (1, ["CHANNELS_ALIKE"])
    assert np.abs(got.audio - 2**15 * ONE).max() <= 1


def test_a_silent_channel_keeps_its_number(tmp_path: Path) -> None:
    """The second party is in the second channel, though nobody speaks in the first."""
    got = decoded(write(tmp_path / "a.wav", 0 * ONE, ONE), channels="separate")
    silent, spoken = channels_of(got)
    assert not silent.any()
    assert np.abs(spoken - 2**15 * ONE).max() <= 1


def test_too_many_channels_are_refused(tmp_path: Path) -> None:
    """Nine are not mixed against the caller's word."""
    assert refusal(write(tmp_path / "a.wav", *[ONE] * 9), channels="separate").endswith("channels in the file: 9)")


def level_db(sound: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(sound.astype(float) ** 2) + 1e-9))


@pytest.mark.parametrize("delay", [0, 160])
@pytest.mark.parametrize("leak_db", [-15, -20, -30, -40])
def test_a_party_is_not_heard_in_the_others_channel(leak_db: float, delay: int) -> None:
    """What comes through, at once or 10 ms later, is gone where the other is silent; and each keeps its own sound."""
    pause = np.zeros(len(ONE))
    clean = 2**15 * np.stack([np.concatenate([ONE, pause]), np.concatenate([pause, OTHER])])
    leak = 10 ** (leak_db / 20) * np.roll(clean[::-1], delay, axis=1)
    channels = (clean + leak).round().astype(np.int16)
    assert not crosstalk.are_alike(channels)
    crosstalk.remove(channels)
    first, second = slice(0, len(ONE) - GAP), slice(len(ONE) + GAP, None)
    for own, mine, theirs in ((0, first, second), (1, second, first)):
        assert level_db(channels[own, theirs]) < level_db(leak[own, theirs]) - 15
        assert level_db(channels[own, mine] - clean[own, mine]) < level_db(clean[own, mine]) - 20


def test_a_party_comes_through_two_ways() -> None:
    """Of three microphones the farthest hears a voice directly, and so does the second: neither writes it down."""
    pause = np.zeros(len(ONE))
    clean = 2**15 * np.stack([np.concatenate([ONE, pause]), np.concatenate([pause, OTHER]), np.zeros(2 * len(ONE))])
    leak = np.stack([0.0 * clean[0], 10**-0.5 * clean[0], 0.1 * clean[0]])
    channels = (clean + leak).round().astype(np.int16)
    crosstalk.remove(channels, lambda: None)
    first = slice(0, len(ONE) - GAP)
    for number in (1, 2):
        assert level_db(channels[number, first]) < level_db(leak[number, first]) - 15


def test_of_a_quiet_party_nothing_is_silenced() -> None:
    """It talks all along, 6 dB below what comes through of the other."""
    channels = (2**15 * np.stack([ONE, 0.3 * ONE + 0.15 * OTHER])).round().astype(np.int16)
    spoken = np.abs(2**15 * 0.15 * OTHER) > 50
    crosstalk.remove(channels, lambda: None)
    assert np.mean(channels[1][spoken] == 0) < 0.04


def test_quiet_speech_under_the_others_is_kept() -> None:
    """20 dB quieter and at the same time all along: what comes through is taken out, and the speech is there."""
    quiet = 0.1 * OTHER
    channels = (2**15 * np.stack([ONE + 0.03 * quiet, quiet + 0.05 * ONE])).round().astype(np.int16)
    crosstalk.remove(channels)
    error = channels[1] - 2**15 * quiet
    assert level_db(error) < level_db(2**15 * quiet) - 9
    assert level_db(error) < level_db(2**15 * 0.05 * ONE) - 6
    assert level_db(channels[0] - 2**15 * ONE) < level_db(2**15 * ONE) - 25


def test_a_stop_ends_the_work_on_channels() -> None:
    """A job that is cancelled meanwhile does not wait for an hour of them."""
    channels = (2**15 * np.stack([ONE, OTHER])).astype(np.int16)

    def stopped() -> None:
        raise StoppedError

    for work in (crosstalk.are_alike, crosstalk.remove):
        with pytest.raises(StoppedError):
            work(channels, stopped)
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        media_decoder._check(stop)


# The stored audio


async def test_the_extractor_takes_what_a_job_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The track, the part and the channels of a job reach the decoder, and the stored audio says how many there are."""
    extractor = extractor_in(tmp_path, monkeypatch)
    video = write(tmp_path / "a.wav", ONE, OTHER).read_bytes()
    chosen = {"audio_track": 1, "channels": "separate", "start_s": 1.0, "end_s": 3.0}
    async with serving(whole(video)) as server:
        first = await extractor.prepare("job", "0" * 16, server.url(), None, "ko", **chosen)
    assert (first.channels, first.duration_s, first.samples) == (2, 2.0, 2 * (2 * SAMPLE_RATE_HZ + GAP))
    assert await extractor.prepare("job", "0" * 16, "http://127.0.0.1:1/gone", None, "ko", **chosen) == first
    assert len(extractor.load("job", "0" * 16)) == first.samples


def test_stored_audio_of_one_channel_is_described_as_by_the_release_before(tmp_path: Path) -> None:
    """It reads the description with the fields that it knows, and no other."""
    scratch = Scratch(str(tmp_path))
    for channels, named in ((1, False), (2, True)):
        info = scratch.save("job", "run", np.zeros(8, np.int16), duration_s=1.0, warnings=(), channels=channels)
        [note] = tmp_path.glob("*/*.json")
        assert ("channels" in note.read_text()) is named
        assert scratch.info("job", "run") == info
