"""What runs in the guarded child process of an extraction: reads, decodes and mixes one media file, see `decode.py`.

Imports PyAV, numpy and soxr only, so that it starts fast and holds little memory.
"""
