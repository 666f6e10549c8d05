"""Text that the recogniser wrote and nobody said: how it is detected, and what is left out of the transcript for it."""
