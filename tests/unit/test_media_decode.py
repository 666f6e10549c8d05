"""From media files to audio: right times, right level, clean failures."""

from __future__ import annotations

import logging
import os
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from deployments.errors import AudioExtractionError, JobError, VideoTooLongError
from deployments.extraction import limited_process
from deployments.extraction.config import MediaLimits
from deployments.extraction.media_decoder import DEMUXERS, Decoded, _compare, command, extract
from deployments.extraction.samples import binary
from deployments.types import SAMPLE_RATE_HZ
from deployments.warnings import ResultWarning, WarningCode
from tests.support.clips import GOOD, PICTURE, TONE_DBFS, TONE_HZ, make, run_ffmpeg, silence
from tests.support.memory import Growth

if TYPE_CHECKING:
    from pathlib import Path

    from deployments.types import Audio

LIMITS = MediaLimits()
LATE_S = 2.0


def onset_s(audio: Audio) -> float:
    """When the tone begins."""
    return float(np.argmax(np.abs(audio.astype(int)) > 3000)) / SAMPLE_RATE_HZ


def pitch_hz(audio: Audio) -> float:
    """The strongest frequency."""
    return float(np.argmax(np.abs(np.fft.rfft(audio)))) * SAMPLE_RATE_HZ / len(audio)


def level_dbfs(audio: Audio) -> float:
    """RMS level."""
    return float(20 * np.log10(np.sqrt(np.mean((audio / 32768.0) ** 2))))


@pytest.mark.parametrize("name", GOOD)
def test_m1_good_formats(name: str, tmp_path: Path) -> None:
    """M1: each usual format gives 2 s of audio with the tone at its place, its pitch and its level."""
    got = extract(make(tmp_path / name, GOOD[name]), limits=LIMITS)
    audio = got.audio
    assert audio.dtype == np.int16
    assert len(audio) / SAMPLE_RATE_HZ == pytest.approx(2, abs=0.09)
    assert onset_s(audio) == pytest.approx(1, abs=0.06)
    tone = audio[round(1.2 * SAMPLE_RATE_HZ) : round(1.8 * SAMPLE_RATE_HZ)]
    assert pitch_hz(tone) == pytest.approx(TONE_HZ, abs=5)
    assert level_dbfs(tone) == pytest.approx(TONE_DBFS, abs=0.5)
    assert got.duration_s == pytest.approx(2, abs=0.15)
    assert got.warnings == ()


@pytest.mark.parametrize(("layout", "rate"), [("mono", 8000), ("mono", 96_000), ("5.1", 44_100)])
def test_channels_and_rates_become_mono_16_khz(layout: str, rate: int, tmp_path: Path) -> None:
    """Whatever rate and channel layout come, mono at 16 kHz leaves; a mix never clips."""
    audio = extract(make(tmp_path / "a.wav", "-vn", layout=layout, rate=rate), limits=LIMITS).audio
    assert len(audio) == 2 * SAMPLE_RATE_HZ
    tone = audio[round(1.2 * SAMPLE_RATE_HZ) : round(1.8 * SAMPLE_RATE_HZ)]
    assert level_dbfs(tone) == pytest.approx(TONE_DBFS, abs=0.5)


SOUND_3S = ("-f", "lavfi", "-i", "aevalsrc=0.5*sin(2*PI*1000*t):s=48000:d=3")
PICTURE_5S = ("-f", "lavfi", "-i", PICTURE.replace("d=2", "d=5"))
SHIFT = ("-itsoffset", str(LATE_S))


@pytest.mark.parametrize("offset_s", [0, 100])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv"])
def test_times_count_from_the_videos_start(name: str, offset_s: int, tmp_path: Path) -> None:
    """Audio that begins 2 s after the picture is padded, not shifted, whatever the file's own clock starts at."""
    path = tmp_path / name
    at = ("-output_ts_offset", str(offset_s)) if offset_s else ()
    codecs = ("-c:v", "flv" if name.endswith("flv") else "mpeg2video", "-c:a", "aac")
    run_ffmpeg(*PICTURE_5S, *SHIFT, *SOUND_3S, *codecs, *at, path)
    got = extract(path, limits=LIMITS)
    assert onset_s(got.audio) == pytest.approx(LATE_S, abs=0.03)
    assert len(got.audio) / SAMPLE_RATE_HZ == pytest.approx(LATE_S + 3, abs=0.05)
    assert got.duration_s == pytest.approx(LATE_S + 3, abs=0.1)
    assert got.warnings == ()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_audio_before_the_picture_starts_the_video(name: str, tmp_path: Path) -> None:
    """Where the sound comes first, the file's start is the sound's: nothing of it is cut off."""
    path = tmp_path / name
    run_ffmpeg(*SHIFT, *PICTURE_5S, *SOUND_3S, "-map", "0:v", "-map", "1:a", "-c:v", "mpeg2video", "-c:a", "aac", path)
    got = extract(path, limits=LIMITS)
    assert onset_s(got.audio) == pytest.approx(0, abs=0.03)
    assert len(got.audio) / SAMPLE_RATE_HZ == pytest.approx(3, abs=0.05)
    assert got.duration_s == pytest.approx(7, abs=0.1)


def test_a_gap_in_the_sound_is_kept(tmp_path: Path) -> None:
    """Where sound is missing in the middle, silence stands for it and what follows stays in its place."""
    path = tmp_path / "gap.mkv"
    cut = ("-af", "aselect='not(between(t,1,3))'")
    run_ffmpeg("-f", "lavfi", "-i", "aevalsrc=0.5*sin(2*PI*1000*t):s=48000:d=5", *cut, "-c:a", "pcm_s16le", path)
    audio = extract(path, limits=LIMITS).audio
    assert len(audio) / SAMPLE_RATE_HZ == pytest.approx(5, abs=0.05)
    assert np.abs(audio[round(1.3 * SAMPLE_RATE_HZ) : round(2.7 * SAMPLE_RATE_HZ)].astype(int)).max() < 50
    assert level_dbfs(audio[round(3.3 * SAMPLE_RATE_HZ) :]) == pytest.approx(TONE_DBFS, abs=0.5)


def test_a_picture_that_outlasts_the_sound_is_no_fault(tmp_path: Path) -> None:
    """A video of 5 s with 1 s of sound is complete: no error, the video's own duration."""
    for name in ("a.mp4", "a.mkv", "a.avi"):
        sound = ("-f", "lavfi", "-i", "sine=1000:d=1")
        run_ffmpeg(*PICTURE_5S, *sound, "-c:v", "mpeg4", "-c:a", "libmp3lame", tmp_path / name)
        got = extract(tmp_path / name, limits=LIMITS)
        assert got.duration_s == pytest.approx(5, abs=0.1)
        assert len(got.audio) / SAMPLE_RATE_HZ == pytest.approx(1, abs=0.1)


def test_progress_rises_to_the_end(tmp_path: Path) -> None:
    """Progress is the share of samples that have come out, not a timer."""
    path = silence(tmp_path / "long.wav", 120)
    seen: list[float] = []
    extract(path, limits=LIMITS, on_fraction=seen.append)
    assert seen == sorted(seen)
    assert len(seen) > 5
    assert seen[-1] == pytest.approx(1, abs=0.01)


def fault(path: Path, limits: MediaLimits = LIMITS) -> JobError:
    """The error that extracting `path` ends in."""
    with pytest.raises(JobError) as caught:
        extract(path, limits=limits)
    for locale in ("ko", "en"):
        assert path.name not in caught.value.sentence(locale)
    return caught.value


def reason(path: Path) -> str:
    error = fault(path)
    assert isinstance(error, AudioExtractionError)
    return str(error.values["reason"])


def test_m1_the_command_line(tmp_path: Path) -> None:
    """M1: a list; our own path by `file:`, these formats only, and nothing of the environment's Python."""
    path = tmp_path / "a b; rm -rf x.mp4"
    words = command(path, LIMITS, "ko")
    assert words[:2] == [sys.executable, "-I"]
    assert words[3:] == [f"file:{path}", DEMUXERS, "ko,kor", "3601.0", "60.0"]
    assert not {"hls", "concat", "dash", "image2", "sdp", "rtsp", "lavfi", "webm_dash_manifest"} & set(
        DEMUXERS.split(",")
    )


def test_m1_only_a_file_is_a_video(tmp_path: Path) -> None:
    """M1: a link to another job's sound, and a pipe that nobody writes to, are no media: at once, and unread."""
    link, pipe = tmp_path / "link.mp4", tmp_path / "pipe.mp4"
    link.symlink_to(make(tmp_path / "secret.wav", "-vn"))
    os.mkfifo(pipe)
    began = time.monotonic()
    assert [reason(path) for path in (link, pipe, tmp_path)] == ["not_media"] * 3
    assert time.monotonic() - began < 1


def test_files_that_are_no_media(tmp_path: Path) -> None:
    """Text, nothing, pictures, archives and noise are told apart from media."""
    good = make(tmp_path / "good.mp4", GOOD["aac.mp4"]).read_bytes()
    run_ffmpeg("-f", "lavfi", "-i", PICTURE, "-frames:v", "1", tmp_path / "picture.png")
    for name, content in {
        "text": b"this is not a video\n" * 100,
        "empty": b"",
        "zeros": bytes(100_000),
        "png": (tmp_path / "picture.png").read_bytes(),
        "zip": b"PK\x03\x04" + bytes(1000),
        "head": good[:40],
        "cut": good[: len(good) // 2],  # the index at the end is lost
        "noise": np.random.default_rng(1).bytes(50_000),
    }.items():
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(content)
        assert reason(path) == "not_media", name


def test_a_video_without_sound(tmp_path: Path) -> None:
    """No audio track is an error of its own."""
    for name in ("a.mp4", "a.mkv", "a.avi"):
        run_ffmpeg("-f", "lavfi", "-i", PICTURE, "-c:v", "mpeg4", tmp_path / name)
        assert reason(tmp_path / name) == "no_audio"


def test_an_unknown_codec(tmp_path: Path) -> None:
    """A codec that nobody decodes is named as such."""
    path = silence(tmp_path / "a.wav", 1, format_tag=0x7ABC)
    assert reason(path) == "unsupported"


@pytest.mark.parametrize("kept", [0.3, 0.75, 1.0])
def test_m3_a_truncated_file(kept: float, tmp_path: Path) -> None:
    """M3: what is there is given, and what is missing is told: never a silently short transcript."""
    path = tmp_path / "a.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "sine=1000:r=16000:d=30", "-c:a", "aac", "-movflags", "+faststart", path)
    content = path.read_bytes()
    path.write_bytes(content[: round(kept * len(content))])
    got = extract(path, limits=LIMITS)
    assert len(got.audio) / SAMPLE_RATE_HZ == pytest.approx(30 * kept, abs=1.5)
    told = {warning.code: warning for warning in got.warnings}
    if kept < 1:
        assert told[WarningCode.AUDIO_INCOMPLETE].share == pytest.approx(1 - kept, abs=0.06)
    else:
        assert told == {}


@pytest.mark.parametrize(
    ("length_s", "expected"),
    [
        (100, []),
        (99.1, []),
        (100.9, []),
        (98.9, [("AUDIO_INCOMPLETE", 1.1, 0.011)]),
        (101.1, [("AUDIO_LONGER", 1.1, None)]),
        (49.9, [("AUDIO_INCOMPLETE", 50.1, 0.501)]),
    ],
)
def test_m3_lengths_agree_within_a_hundredth(length_s: float, expected: list[Any]) -> None:
    """M3: the sound may be 1 % off its own word; beyond is a warning."""
    told = {"container": "mov", "declared_s": 100.0, "declared_by_track": True, "jumped_s": 0.0, "picture_s": 0.0}
    warnings = _compare(told | {"tracks": 1}, length_s)
    assert [(each.code, each.seconds, each.share) for each in warnings] == [
        (code, pytest.approx(seconds), share and pytest.approx(share)) for code, seconds, share in expected
    ]


def test_m3_more_sound_than_the_file_says(tmp_path: Path) -> None:
    """M3: a file whose sound goes on beyond its own word gives all of it, and a warning."""
    path = tmp_path / "a.mkv"
    run_ffmpeg("-f", "lavfi", "-i", "sine=1000:r=16000:d=3", "-c:a", "pcm_s16le", path)
    content = path.read_bytes()
    assert content.count(b"00:00:03.000000000") == 1
    path.write_bytes(content.replace(b"00:00:03.000000000", b"00:00:01.000000000"))
    got = extract(path, limits=LIMITS)
    assert len(got.audio) == 3 * SAMPLE_RATE_HZ
    assert got.warnings == (ResultWarning(code=WarningCode.AUDIO_LONGER, seconds=2.0),)


@pytest.mark.parametrize(("channels", "rate_hz", "passes"), [(65, 8000, False), (1, 800_000, False), (64, 8000, True)])
def test_m3_channels_and_rates_are_bounded(channels: int, rate_hz: int, tmp_path: Path, *, passes: bool) -> None:
    """M3: what nobody records is refused before anything is decoded."""
    head = struct.pack("<HHIIHH", 1, channels, rate_hz, 2 * channels * rate_hz, 2 * channels, 16)
    content = silence(tmp_path / "a.wav", 1).read_bytes()
    (tmp_path / "a.wav").write_bytes(content[:20] + head + content[36:])
    if passes:
        assert len(extract(tmp_path / "a.wav", limits=LIMITS).audio) == 250
    else:
        assert reason(tmp_path / "a.wav") == "unsupported"


def test_m3_61_minutes_are_too_long(tmp_path: Path) -> None:
    """An hour is the limit, by counting."""
    path = silence(tmp_path / "a.wav", 61 * 60)
    assert "60 minutes" in str(fault(path))


@pytest.mark.parametrize("name", ["a.mp3", "a.aac", "live.flac", "live.webm"])
def test_m3_length_is_counted_where_the_file_does_not_tell(name: str, tmp_path: Path) -> None:
    """A file whose length is unknown or a guess is cut off at the limit with an error, not silently."""
    path = tmp_path / name
    sound = ("-f", "lavfi", "-i", "sine=1000:r=16000:d=8")
    if name == "live.flac":
        with path.open("wb") as file:  # a pipe: the header's length stays 0
            file.write(_piped(*sound, "-f", "flac"))
    else:
        run_ffmpeg(*sound, *(("-live", "1", "-c:a", "libopus") if name == "live.webm" else ()), path)
    assert isinstance(fault(path, MediaLimits(max_duration_s=5)), VideoTooLongError)
    assert isinstance(fault(path, MediaLimits(max_duration_s=6.9)), VideoTooLongError)
    assert isinstance(extract(path, limits=MediaLimits(max_duration_s=8)), Decoded)


def _piped(*arguments: str) -> bytes:
    command = [binary(), "-nostdin", "-v", "error", *arguments, "pipe:1"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def test_m3_a_jump_of_the_clock_makes_no_hours_of_silence(tmp_path: Path) -> None:
    """Ten hours that no stream fills are a jump of the clock, and told."""
    path = tmp_path / "a.mkv"
    jump = ("-af", "asetpts='PTS+if(gt(T,1),36000/TB,0)'")
    run_ffmpeg("-f", "lavfi", "-i", "sine=1000:r=16000:d=3", *jump, "-c:a", "pcm_s16le", path)
    got = extract(path, limits=MediaLimits(max_duration_s=60))
    assert len(got.audio) / SAMPLE_RATE_HZ == pytest.approx(3, abs=0.1)
    assert [warning.code for warning in got.warnings] == [WarningCode.CLOCK_JUMPS]


def test_extraction_stops_within_a_moment(tmp_path: Path) -> None:
    """A stop in the middle ends ffmpeg; nothing decodes on."""
    path = silence(tmp_path / "a.wav", 3600)
    stop = threading.Event()
    stopped = []

    def stop_now(_: float) -> None:
        stopped.append(time.monotonic())
        stop.set()

    with pytest.raises(limited_process.StoppedError):
        extract(path, limits=LIMITS, stop=stop, on_fraction=stop_now)
    assert time.monotonic() - stopped[0] < 1


def test_m4_a_slow_decoder_is_cut(tmp_path: Path) -> None:
    """Decoding has a deadline of its own."""
    path = silence(tmp_path / "a.wav", 3600)
    error = fault(path, MediaLimits(decode_s=0.05))
    assert error.values == {"reason": "timeout"}


def test_m4_a_lack_of_memory_is_a_clean_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """M4: where the address space is too small, the child fails and we do not; M7: no traceback of its in the log."""
    caplog.set_level(logging.INFO)
    path = make(tmp_path / "a.mp4", GOOD["aac.mp4"])
    for limit_mb in (32, 64, 100, 150):
        assert isinstance(fault(path, MediaLimits(address_space_mb=limit_mb)), AudioExtractionError)
    told = "".join(str(vars(record)) for record in caplog.records)
    assert caplog.records
    assert "Traceback" not in told
    assert 'File "' not in told


def test_m4_ten_bombs_at_once(tmp_path: Path) -> None:
    """M4: ten hostile files at once are ten clean failures; our memory grows by three decodes, here of ten minutes."""
    good = make(tmp_path / "good.mp4", GOOD["aac.mp4"]).read_bytes()
    bombs = [silence(tmp_path / f"long{i}.wav", 10 * 3600) for i in range(3)]
    for i in range(7):  # an index that claims two thousand million entries
        tag, at = ((b"stsz", 12), (b"stts", 8))[i % 2]
        where = good.index(tag) + at
        bombs.append(tmp_path / f"index{i}.mp4")
        bombs[-1].write_bytes(good[:where] + b"\x7f\xff\xff\xff" + good[where + 4 :])
    growth = Growth()
    with ThreadPoolExecutor(10) as pool:
        errors = list(pool.map(_error_of, bombs))
    assert [type(error) for error in errors] == [VideoTooLongError] * 3 + [AudioExtractionError] * 7
    assert growth.kb < 3 * 19_400 + 60_000


def _error_of(path: Path) -> JobError | None:
    try:
        extract(path, limits=MediaLimits(max_duration_s=600))
    except JobError as error:
        return error
    return None
