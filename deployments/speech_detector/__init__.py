"""Where somebody speaks: the pyannote segmentation network over sliding windows, as spans and as recogniser chunks."""
