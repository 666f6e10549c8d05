"""Times for words that the recogniser wrote down without saying when."""
