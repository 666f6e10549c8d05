"""Text that the recogniser wrote and nobody said: how it is detected, and what is left out of the transcript.

    hypotheses     the decoder's text of one chunk: guessed, silent or looping (in the Transcriber, before word times)
    recitations    the decoder's text of one chunk: nothing but terms of the job's vocabulary (called by the first)
    unheard_words  words of one chunk that neither the acoustic aligner nor the speech detector confirms
    repetitions    the same text in chunk after chunk of one video

In this order; the last two are called by the job's pipeline. Each text that is left out or cut has a warning in the
result, by which `serve_app/observability/job_metrics.py` counts it. Plain functions that know no model.
"""
