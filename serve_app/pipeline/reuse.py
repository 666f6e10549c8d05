"""What each step's answer is computed from, as one line, and whether a run can do with the answers that are stored.

An answer is used again where its source is the same. So a run that changes some options repeats only the steps that
these options touch. Knows nothing of Ray or of how answers are computed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from serve_app.jobs.stages import Step
from serve_app.pipeline.checkpoint_codec import decode, source_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from deployments.types import AudioInfo
    from serve_app.jobs.job import Job, JobOptions
    from serve_app.pipeline.steps import StepRunner
    from serve_app.settings import Settings
    from serve_app.storage.checkpoints import Checkpoints, Saved

BY_EXTRACTION = {"audio_track", "channels", "start_s", "end_s"}
BY_TIME = {"channels", "start_s", "end_s"}
"""Of these, what says which moment and which channel of the video a sample is."""
BY_TRANSCRIPTION = {"language", "languages", "vocabulary"}


def extraction_source(options: JobOptions) -> str:
    """Return the source of the audio. Its `language`, which may choose a track, is in the transcription's source."""
    return source_of("run", *_given(options, BY_EXTRACTION))


def audio_source(audio: AudioInfo, options: JobOptions, model_version: str) -> str:
    """Return the source of all answers about the audio: its samples and the engines."""
    return source_of(audio.sha256, model_version, *_given(options, BY_TIME))


def transcription_source(source: str, options: JobOptions) -> str:
    """Return the source of the transcripts of audio whose source is `source`."""
    given = _given(options, BY_TRANSCRIPTION)
    return source_of(source, *given) if given else source


def has_all_about(audio: AudioInfo, steps: StepRunner, job: Job, model_version: str) -> bool:
    """Return whether no step has to listen to `audio`.

    Emotions count whatever segments they are of: if of others, the audio is extracted when they are asked for.
    """
    source = audio_source(audio, job.options, model_version)
    return (
        steps.has_saved(Step.TRANSCRIPTION, transcription_source(source, job.options))
        and (audio.channels > 1 or steps.has_saved(Step.DIARIZATION, diarization_source(source, job.options)))
        and steps.has_saved(Step.DETECTION, source)
        and steps.has_saved(Step.TRACKS, source)
        and (not job.options.emotion_detection or steps.has_saved(Step.EMOTION))
    )


def diarization_source(source: str, options: JobOptions) -> str:
    """Return the source of the turns in audio whose source is `source`."""
    counts = options.speaker_counts
    return source_of(source, repr(sorted(counts.items()))) if counts else source


def _given(options: JobOptions, names: set[str]) -> list[str]:
    """Return the options of these names that are not at their defaults, as one JSON text; none where all are."""
    given = options.model_dump(mode="json", include=names, exclude_defaults=True)
    return [json.dumps(given, sort_keys=True)] if given else []


def needs_sound(job_id: str, options: JobOptions, settings: Settings, checkpoints: Checkpoints) -> bool:
    """Return whether a run with these options has to listen to the video; True also where that is not sure.

    Reads all answers that the run would use, and so finds damaged ones. Blocking: call it from a thread.
    """
    saved = checkpoints.sources(job_id)
    audio = _stored_audio(job_id, options, saved, checkpoints)
    if audio is None:
        return True
    source = audio_source(audio, options, settings.on(enable_gpu=options.enable_gpu).model_version)
    expected = dict.fromkeys((Step.DETECTION, Step.TRACKS), source)
    expected[Step.TRANSCRIPTION] = transcription_source(source, options)
    if audio.channels == 1:  # channels that are kept apart have one speaker each
        expected[Step.DIARIZATION] = diarization_source(source, options)
    if any(step not in saved or saved[step].source != made_from for step, made_from in expected.items()):
        return True
    listening = list(expected)
    if options.emotion_detection:
        newest = max(saved[step].run for step in listening)
        if Step.EMOTION not in saved or saved[Step.EMOTION].run < newest:  # they may be of other segments
            return True
        listening.append(Step.EMOTION)
    return any(checkpoints.load(job_id, step) is None for step in listening)


def _stored_audio(
    job_id: str, options: JobOptions, saved: Mapping[str, Saved], checkpoints: Checkpoints
) -> AudioInfo | None:
    """Return what is stored about the audio, None where it is of other options, damaged or of another release."""
    source = extraction_source(options)
    if Step.EXTRACTION not in saved or saved[Step.EXTRACTION].source != source:
        return None
    body = checkpoints.load(job_id, Step.EXTRACTION)
    try:
        return None if body is None else decode(Step.EXTRACTION, body.partition(b"\n")[2])
    except Exception:  # noqa: BLE001 - whatever it is, the audio can be extracted again
        return None
