"""The names of the parts of a job's work. Three lists, because three things are divided in three ways.

    Stage        TimedStage       Step (of a checkpoint)

    queued
    starting
    extraction   extraction       extraction
    detection    detection        detection
    diarization  diarization      overlap, diarization
    transcription transcription   partial_transcript, transcription
    analysis     prosody          tracks
                 analysis         prosody, emotion
    assembly
    done

All values are published or stored: those of `Stage` on the wire and in the job table, those of `TimedStage` in the
result's `metadata.stages`, the timeline, metrics and traces, those of `Step` in the table of checkpoints.
"""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """The contract's stages, in its order."""

    QUEUED = "queued"
    STARTING = "starting"
    EXTRACTION = "extraction"
    DETECTION = "detection"
    DIARIZATION = "diarization"
    TRANSCRIPTION = "transcription"
    ANALYSIS = "analysis"
    ASSEMBLY = "assembly"
    DONE = "done"


class TimedStage(StrEnum):
    """What is timed, in the order in which it begins. Other than in `Stage`, the prosody's tracks are not analysis."""

    EXTRACTION = "extraction"
    DETECTION = "detection"
    TRANSCRIPTION = "transcription"
    DIARIZATION = "diarization"
    PROSODY = "prosody"
    ANALYSIS = "analysis"


class Step(StrEnum):
    """What leaves a checkpoint."""

    EXTRACTION = "extraction"
    DETECTION = "detection"
    PARTIAL_TRANSCRIPT = "partial_transcript"
    """The chunks transcribed so far of a transcription that is under way."""
    TRANSCRIPTION = "transcription"
    DIARIZATION = "diarization"
    OVERLAP = "overlap"
    """The share of overlapped speech; saved before the diarization's own answer."""
    TRACKS = "tracks"
    PROSODY = "prosody"
    EMOTION = "emotion"

    @property
    def timed_as(self) -> TimedStage:
        """The stage to which the time of this step counts."""
        return _TIMED_AS[self]


_TIMED_AS = {
    Step.EXTRACTION: TimedStage.EXTRACTION,
    Step.DETECTION: TimedStage.DETECTION,
    Step.PARTIAL_TRANSCRIPT: TimedStage.TRANSCRIPTION,
    Step.TRANSCRIPTION: TimedStage.TRANSCRIPTION,
    Step.DIARIZATION: TimedStage.DIARIZATION,
    Step.OVERLAP: TimedStage.DIARIZATION,
    Step.TRACKS: TimedStage.PROSODY,
    Step.PROSODY: TimedStage.ANALYSIS,
    Step.EMOTION: TimedStage.ANALYSIS,
}
