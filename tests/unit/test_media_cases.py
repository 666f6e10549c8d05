"""Files that real people have: channels, tracks, clocks, damage, containers. Truth comes from how they were made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from deployments.errors import AudioExtractionError
from deployments.extraction.config import MediaLimits
from deployments.extraction.media_decoder import extract
from deployments.types import SAMPLE_RATE_HZ
from deployments.warnings import ResultWarning, WarningCode
from tests.support.clips import run_ffmpeg

if TYPE_CHECKING:
    from pathlib import Path

    from deployments.extraction.protocol import Decoded
    from deployments.types import Audio

LIMITS = MediaLimits()
SECONDS = 8


def voice(seconds: float = SECONDS, seed: int = 1, level: float = 0.2) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Noise of a voice's colour that gets louder and softer four times a second, as syllables do."""
    chance = np.random.default_rng(seed)
    times = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    noise = np.convolve(chance.standard_normal(len(times)), np.hanning(12), "same")
    loud = np.clip(np.sin(2 * np.pi * 4 * times + chance.uniform(0, 6)), 0, None)
    return level * noise * loud / np.abs(noise).max()


def write(path: Path, *channels: np.ndarray[Any, np.dtype[np.float64]]) -> Path:
    """A WAV file of float samples, which clips nothing."""
    soundfile.write(path, np.stack(channels, axis=1), SAMPLE_RATE_HZ, subtype="FLOAT")
    return path


def decoded(path: Path, **options: Any) -> Decoded:
    return extract(path, limits=LIMITS, **options)


def level_db(audio: Audio | np.ndarray[Any, Any]) -> float:
    scale = 32768.0 if audio.dtype == np.int16 else 1.0
    return float(10 * np.log10(np.mean((audio / scale) ** 2) + 1e-12))


def likeness(audio: Audio, original: np.ndarray[Any, Any]) -> float:
    """The highest correlation at a lag of up to 100 ms, without regard to the sign: some codecs have a priming."""
    length = min(len(audio), len(original)) - 1600
    spectra = [np.fft.rfft(np.asarray(each[:length], float), 2 * length) for each in (audio, original)]
    lags = np.fft.irfft(spectra[0] * spectra[1].conj())
    norm = np.linalg.norm(audio[:length].astype(float)) * np.linalg.norm(original[:length])
    return float(np.abs(np.concatenate([lags[:1600], lags[-1600:]])).max() / norm)


def codes(got: Decoded) -> list[str]:
    return [warning.code.value for warning in got.warnings]


ONE, OTHER = voice(seed=1), voice(seed=2)
QUIET = 0.0 * ONE
CHANNELS = {
    "mono": [ONE],
    "dual mono": [ONE, ONE],
    "one side": [QUIET, ONE],
    "other side": [ONE, QUIET],
    "out of phase": [ONE, -ONE],
    "nearly out of phase": [ONE, -0.8 * ONE + 0.05 * OTHER],
    "centre of six": [QUIET, QUIET, ONE, QUIET, QUIET, QUIET],
    "one of eight": [*[QUIET] * 7, ONE],
    "all of eight": [ONE] * 8,
    "one of four out of phase": [ONE, ONE, ONE, -ONE],
}


@pytest.mark.parametrize("name", CHANNELS)
def test_speech_survives_the_mix_at_its_level(name: str, tmp_path: Path) -> None:
    """Whatever channels it lies in, the speech comes out, within 3 dB of its level in the loudest channel."""
    got = decoded(write(tmp_path / "a.wav", *CHANNELS[name]))
    assert likeness(got.audio, ONE) > 0.98
    assert level_db(got.audio) == pytest.approx(level_db(ONE), abs=3)
    assert codes(got) == ["CHANNELS_OPPOSED"] * ("out of phase" in name)


@pytest.mark.parametrize("quieter_db", [0, 20])
def test_two_parties_in_two_channels_are_both_heard(quieter_db: float, tmp_path: Path) -> None:
    """Hard left and right, one much quieter, with overlap: each keeps its level while it speaks."""
    left, right = ONE.copy(), OTHER * 10 ** (-quieter_db / 20)
    left[5 * SAMPLE_RATE_HZ :] = 0
    right[: 4 * SAMPLE_RATE_HZ] = 0
    audio = decoded(write(tmp_path / "a.wav", left, right)).audio
    alone = slice(0, 4 * SAMPLE_RATE_HZ), slice(6 * SAMPLE_RATE_HZ, None)
    for part, channel in zip(alone, (left, right), strict=True):
        assert likeness(audio[part], channel[part]) > 0.98
        assert level_db(audio[part]) == pytest.approx(level_db(channel[part]), abs=3)
    both = slice(round(4.2 * SAMPLE_RATE_HZ), round(4.8 * SAMPLE_RATE_HZ))
    assert likeness(audio[both], (left + right)[both]) > 0.98


def test_a_subwoofer_drowns_no_speech(tmp_path: Path) -> None:
    """The low-frequency channel is left out where there is other sound."""
    rumble = 0.4 * np.sin(2 * np.pi * 40 * np.arange(len(ONE)) / SAMPLE_RATE_HZ)
    source = write(tmp_path / "six.wav", ONE, ONE, ONE, rumble, QUIET, QUIET)
    run_ffmpeg("-channel_layout", "5.1", "-i", source, "-c:a", "flac", tmp_path / "a.mkv")
    assert likeness(decoded(tmp_path / "a.mkv").audio, ONE) > 0.98


def test_clipping_is_told(tmp_path: Path) -> None:
    """Sound that was recorded too loud has a warning with its seconds, loud sound has none."""
    soundfile.write(tmp_path / "loud.wav", np.clip(1000 * ONE, -1, 1), SAMPLE_RATE_HZ)
    soundfile.write(tmp_path / "fine.wav", 0.99 * ONE / np.abs(ONE).max(), SAMPLE_RATE_HZ)
    (warning,) = decoded(tmp_path / "loud.wav").warnings
    assert warning.code is WarningCode.AUDIO_CLIPPED
    assert warning.seconds == pytest.approx(np.mean(np.abs(1000 * ONE) >= 1) * SECONDS, rel=0.1)
    assert codes(decoded(tmp_path / "fine.wav")) == []


def test_silence_is_told(tmp_path: Path) -> None:
    """A track without a sound is a completed job with a warning."""
    got = decoded(write(tmp_path / "a.wav", QUIET))
    assert not got.audio.any()
    assert got.warnings == (ResultWarning(code=WarningCode.AUDIO_SILENT, seconds=SECONDS),)


def tracks(path: Path, *sounds: np.ndarray[Any, Any], options: tuple[str, ...] = ()) -> Path:
    """A file with these audio tracks."""
    inputs: list[str] = []
    for number, sound in enumerate(sounds):
        inputs += ["-i", str(write(path.with_name(f"{path.stem}{number}.wav"), sound))]
    maps = [word for number in range(len(sounds)) for word in ("-map", str(number))]
    run_ffmpeg(*inputs, *maps, "-c:a", "aac", *options, path)
    return path


MUSIC = 0.2 * np.sin(2 * np.pi * 440 * np.arange(len(ONE)) / SAMPLE_RATE_HZ)
DEFAULTS = ("-disposition:a", "0", "-disposition:a:1", "default")
TAGS = ("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=kor")


@pytest.mark.parametrize(
    ("name", "sounds", "options", "language", "number"),
    [
        ("silent first.mkv", (QUIET, ONE), (), "auto", 2),
        ("silent first.mp4", (QUIET, ONE), (), "auto", 2),
        ("default.mkv", (OTHER, ONE), DEFAULTS, "auto", 2),
        ("default and silent.mkv", (ONE, QUIET), DEFAULTS, "auto", 1),
        ("asked.mkv", (OTHER, ONE), TAGS, "ko", 2),
        ("asked.mp4", (OTHER, ONE), TAGS, "ko", 2),
        ("other asked.mkv", (ONE, OTHER), TAGS, "en", 1),
        ("asked before default.mkv", (ONE, OTHER), (*TAGS, *DEFAULTS), "en", 1),
        ("asked and silent.mkv", (ONE, QUIET), TAGS, "ko", 1),
        ("speech.ts", (MUSIC, ONE), (), "auto", 2),
        ("speech first.ts", (ONE, MUSIC, QUIET), (), "auto", 1),
    ],
)
def test_tracks_are_chosen_by_rule_and_told(
    name: str, sounds: tuple[Any, ...], options: tuple[str, ...], language: str, number: int, *, tmp_path: Path
) -> None:
    """In the asked language, else the default one, else the one with most speech; a silent one never."""
    got = decoded(tracks(tmp_path / name, *sounds, options=options), language=language)
    assert likeness(got.audio, ONE) > 0.9
    [told] = [warning for warning in got.warnings if warning.code is WarningCode.TRACK_CHOSEN]
    assert (told.track, told.count) == (number, len(sounds))


def test_all_tracks_silent(tmp_path: Path) -> None:
    """Silence of the right length, and both warnings."""
    got = decoded(tracks(tmp_path / "a.mkv", QUIET, QUIET))
    assert len(got.audio) / SAMPLE_RATE_HZ == pytest.approx(SECONDS, abs=0.1)
    assert codes(got) == ["AUDIO_SILENT", "TRACK_CHOSEN"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The voice as a file."""
    return write(tmp_path_factory.mktemp("clips") / "one.wav", ONE)


def piece(path: Path, clip: Path, *options: str) -> bytes:
    """A piece of MPEG-TS."""
    run_ffmpeg("-i", clip, "-c:a", "aac", *options, "-f", "mpegts", path)
    return path.read_bytes()


@pytest.mark.parametrize("rates", [(48_000, 44_100), (44_100, 48_000)])
def test_the_format_changes_in_mid_stream(rates: tuple[int, int], clip: Path, tmp_path: Path) -> None:
    """Another rate and number of channels: no shift, no padding."""
    one = piece(tmp_path / "1.ts", clip, "-ar", str(rates[0]), "-ac", "2")
    two = piece(tmp_path / "2.ts", clip, "-ar", str(rates[1]), "-ac", "1", "-output_ts_offset", str(SECONDS))
    (tmp_path / "a.ts").write_bytes(one + two)
    got = decoded(tmp_path / "a.ts")
    assert got.duration_s == pytest.approx(2 * SECONDS, abs=0.1)
    early = round(0.1 * SAMPLE_RATE_HZ)
    second = got.audio[SECONDS * SAMPLE_RATE_HZ - early :][: 3 * SAMPLE_RATE_HZ].astype(float)
    lag = np.argmax(np.correlate(second, ONE[:SAMPLE_RATE_HZ], "valid")) - early
    assert abs(lag) / SAMPLE_RATE_HZ < 0.05


@pytest.mark.parametrize("offset_s", [38, 3600 * 7, -100])
@pytest.mark.parametrize("picture", [False, True], ids=["sound only", "with picture"])
def test_the_clock_jumps(offset_s: int, clip: Path, tmp_path: Path, *, picture: bool) -> None:
    """Pieces that were joined have two clocks: the sound goes on without the jump, and a warning tells it."""
    moving = ("-f", "lavfi", "-i", f"testsrc2=size=160x90:rate=10:d={SECONDS}", "-c:v", "mpeg2video") * picture
    start = 1000
    one = piece(tmp_path / "1.ts", clip, *moving, "-output_ts_offset", str(start))
    two = piece(tmp_path / "2.ts", clip, *moving, "-output_ts_offset", str(start + offset_s))
    (tmp_path / "a.ts").write_bytes(one + two)
    got = decoded(tmp_path / "a.ts")
    assert got.duration_s == pytest.approx(2 * SECONDS, abs=0.3)
    assert "CLOCK_JUMPS" in codes(got)
    assert "AUDIO_INCOMPLETE" not in codes(got)


def test_a_gap_of_the_sound_under_a_picture_is_no_jump(tmp_path: Path) -> None:
    """Where the picture goes on, missing sound is silence, however long, in a format that may jump, too."""
    source = write(tmp_path / "a.wav", np.concatenate([ONE, np.zeros(22 * SAMPLE_RATE_HZ), ONE]))
    picture = ("-f", "lavfi", "-i", "testsrc2=size=160x90:rate=10:d=38", "-c:v", "mpeg2video")
    run_ffmpeg("-i", source, *picture, "-af", "aselect='not(between(t,8,30))'", "-c:a", "mp2", tmp_path / "a.ts")
    got = decoded(tmp_path / "a.ts")
    assert got.duration_s == pytest.approx(38, abs=0.3)
    assert "CLOCK_JUMPS" not in codes(got)
    assert "AUDIO_GAPS" in codes(got)
    assert likeness(got.audio[30 * SAMPLE_RATE_HZ :], ONE) > 0.8


def test_lengths_that_others_tell(clip: Path, tmp_path: Path) -> None:
    """A subtitle an hour and a half later makes no long video."""
    (tmp_path / "a.srt").write_text("1\n01:30:00,000 --> 01:30:02,000\nlate\n")
    run_ffmpeg("-i", clip, "-i", tmp_path / "a.srt", "-c:a", "aac", "-c:s", "srt", tmp_path / "a.mkv")
    got = decoded(tmp_path / "a.mkv")
    assert got.duration_s == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("name", ["a.mp4", "a.aac", "a.mp3"])
def test_damage_in_the_middle_is_told(name: str, clip: Path, tmp_path: Path) -> None:
    """What cannot be decoded is silence at its place, and its seconds are told."""
    path = tmp_path / name
    run_ffmpeg("-i", clip, "-b:a", "64k", path)
    content = bytearray(path.read_bytes())
    start, end = round(0.4 * len(content)), round(0.65 * len(content))
    content[start:end] = np.random.default_rng(3).bytes(end - start)
    path.write_bytes(content)
    got = decoded(path)
    lost_s = sum(w.seconds or 0 for w in got.warnings if w.code in {WarningCode.AUDIO_DAMAGED, WarningCode.AUDIO_GAPS})
    if name != "a.aac":  # packets of varying size, and no times of their own
        assert len(got.audio) / SAMPLE_RATE_HZ == pytest.approx(SECONDS, abs=0.1)
        assert likeness(got.audio[-2 * SAMPLE_RATE_HZ :], ONE[-2 * SAMPLE_RATE_HZ :]) > 0.8
    assert lost_s == pytest.approx(2, abs=0.9)
    assert "AUDIO_DAMAGED" in codes(got)


CONTAINERS = {
    "a.amr": ("-ar", "8000", "-c:a", "libopencore_amrnb"),
    "a.3gp": ("-ar", "8000", "-c:a", "libopencore_amrnb"),
    "a.mpg": ("-ar", "48000"),
    "a.aiff": (),
    "a.caf": (),
    "a.ac3": (),
    "a.eac3": (),
    "a.w64": (),
    "a.au": (),
    "a.wv": (),
    "a.tta": (),
    "a.wma": (),
    "a.mka": ("-c:a", "flac"),
    "a.opus": ("-c:a", "libopus"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_that_people_have(name: str, tmp_path: Path) -> None:
    """Each container of the list is read, with the sound at its place."""
    sound = np.where(np.arange(len(ONE)) < 3 * SAMPLE_RATE_HZ, 0, MUSIC)
    run_ffmpeg("-i", write(tmp_path / "source.wav", sound), *CONTAINERS[name], tmp_path / name)
    got = decoded(tmp_path / name)
    assert got.duration_s == pytest.approx(SECONDS, abs=0.15)
    assert np.argmax(np.abs(got.audio.astype(int)) > 2000) / SAMPLE_RATE_HZ == pytest.approx(3, abs=0.06)


def test_mxf_and_dv(clip: Path, tmp_path: Path) -> None:
    """Files of cameras and broadcasters."""
    mxf = ("-f", "lavfi", "-i", f"testsrc2=size=320x240:rate=25:d={SECONDS}", "-c:v", "mpeg2video", "-ar", "48000")
    run_ffmpeg("-i", clip, *mxf, tmp_path / "a.mxf")
    dv = ("-f", "lavfi", "-i", f"testsrc2=size=720x576:rate=25:d={SECONDS}", "-target", "pal-dv")
    run_ffmpeg("-i", clip, *dv, tmp_path / "a.dv")
    for name in ("a.mxf", "a.dv"):
        assert likeness(decoded(tmp_path / name).audio, ONE) > 0.9, name


def sentence(path: Path) -> str:
    with pytest.raises(AudioExtractionError) as caught:
        decoded(path)
    assert caught.value.sentence("ko") != caught.value.sentence("en")
    return str(caught.value)


def test_refusals_name_what_they_found(clip: Path, tmp_path: Path) -> None:
    """An encrypted file, a film without sound, an image, a text."""
    protected = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "1" * 32, "-encryption_kid", "2" * 32)
    run_ffmpeg("-i", clip, "-c:a", "aac", *protected, tmp_path / "drm.mp4")
    picture = ("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:d=1", "-c:v", "mpeg2video")
    run_ffmpeg(*picture, tmp_path / "mute.mxf")
    run_ffmpeg(*picture[:4], "-frames:v", "1", tmp_path / "image.png")
    run_ffmpeg(*picture[:4], "-frames:v", "1", tmp_path / "photo.jpg")
    (tmp_path / "page.mp4").write_text("<!DOCTYPE html><html><body>안녕하세요</body></html>")
    (tmp_path / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/a.ts\n")
    assert {path.name: sentence(path) for path in tmp_path.iterdir()} == {
        "drm.mp4": "Audio extraction failed (the file is DRM-protected: MP4)",
        "mute.mxf": "Audio extraction failed (no audio track: MXF)",
        "image.png": "Audio extraction failed (not a media file: an image)",
        "photo.jpg": "Audio extraction failed (not a media file: an image)",
        "page.mp4": "Audio extraction failed (not a media file: a text)",
        "list.mp4": "Audio extraction failed (not a media file: a playlist)",
    }


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.3, 1.1])
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a", "a.opus"])
def test_very_short_files(name: str, seconds: float, tmp_path: Path) -> None:
    """They have their length."""
    run_ffmpeg("-i", write(tmp_path / "source.wav", voice(seconds)), tmp_path / name)
    assert decoded(tmp_path / name).duration_s == pytest.approx(seconds, abs=0.07)


@pytest.mark.parametrize(
    "options",
    [
        ("-c:a", "aac", "-ar", "48000", "a.avi"),
        ("-c:a", "pcm_s16le", "-metadata", "title=a", "a.wav"),
        ("-c:a", "aac", "-ar", "44100", "-bsf:a", "setts=ts=floor(N/2)*2048", "a.flv"),
    ],
    ids=["codec by number", "broken metadata", "jitter"],
)
def test_what_stands_around_the_sound_costs_none(options: tuple[str, ...], clip: Path, tmp_path: Path) -> None:
    """A codec that is a number, a title that is no UTF-8, frames that are stamped in pairs: the voice is whole."""
    path = tmp_path / options[-1]
    run_ffmpeg("-i", clip, *options[:-1], path)
    if path.suffix == ".wav":
        path.write_bytes(path.read_bytes().replace(b"INAM\x02\x00\x00\x00a\x00", b"INAM\x02\x00\x00\x00\xb0\x00"))
        assert b"\xb0\x00" in path.read_bytes()
    got = decoded(path)
    assert got.warnings == ()
    assert got.duration_s == pytest.approx(SECONDS, abs=0.2)
    assert level_db(got.audio) == pytest.approx(level_db(ONE), abs=1)
