"""The former place of what passes between the diarizer's calls. It goes with the next release.

A job that runs while the server is updated sends values that were pickled under this name.
"""

from deployments.diarizer.protocol import Embeddings, Segmentation

__all__ = ["Embeddings", "Segmentation"]
