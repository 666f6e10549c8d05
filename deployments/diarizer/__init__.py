"""Who speaks when: pyannote's speaker diarization, in short calls over the pieces of a video."""
