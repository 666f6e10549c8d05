"""In which mood a segment is spoken, as far as voice and words tell."""
