"""From a URL to the audio that all stages work on: download, decode, store."""
