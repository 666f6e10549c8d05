"""Times for the recogniser's words, by acoustic models."""
