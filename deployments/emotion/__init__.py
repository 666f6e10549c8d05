"""The emotion of a segment, by its voice and its words."""
