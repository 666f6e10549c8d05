"""Speech to words: one chunk of at most a quarter of a minute at a time."""
