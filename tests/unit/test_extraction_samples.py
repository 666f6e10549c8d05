from __future__ import annotations

from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
import soundfile

from deployments.extraction import samples

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    path = tmp_path / "tone, it's 1.wav"
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 16_000), 16_000)
    return path


def decoded(path: Path) -> tuple[list[str], np.ndarray, float]:
    """Codec names, the sound, and the picture's length in seconds."""
    with av.open(path) as container:
        names = [stream.codec.name for stream in container.streams]
        picture = container.streams.video[0]
        length_s = float((picture.duration or 0) * (picture.time_base or 0))
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return names, np.concatenate(frames, axis=1)[0], length_s


def test_the_video_carries_the_sound_and_as_long_a_picture(tone: Path, tmp_path: Path) -> None:
    """h264 and AAC, 3 s of both, and the very tone."""
    out = tmp_path / "out.mp4"
    samples.make_test_video(tone, out)
    names, sound, picture_s = decoded(out)
    assert names == ["h264", "aac"]
    assert picture_s == pytest.approx(3, abs=1 / 12)
    assert len(sound) == pytest.approx(48_000, abs=2048)
    middle = sound[8000:40_000]
    assert np.argmax(np.abs(np.fft.rfft(middle))) / (len(middle) / 16_000) == pytest.approx(440, abs=1)
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.05)


def test_an_ffmpeg_without_x264_makes_mpeg4(tone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second codec is used when the first fails."""
    ours = samples.command

    def without_x264(audio: Path, out: Path, **codec: str) -> list[str]:
        return ours(audio, out, **{name: value.replace("libx264", "nothing") for name, value in codec.items()})

    monkeypatch.setattr(samples, "command", without_x264)
    out = tmp_path / "out.mp4"
    samples.make_test_video(tone, out)
    assert decoded(out)[0] == ["mpeg4", "aac"]


def test_what_is_no_sound_is_told(tmp_path: Path) -> None:
    """A file that holds no sound is an error that names it."""
    (tmp_path / "text.wav").write_text("no sound")
    with pytest.raises(samples.VideoNotMadeError, match=r"text\.wav"):
        samples.make_test_video(tmp_path / "text.wav", tmp_path / "out.mp4")
