"""How speech sounds: pitch and level, first as tracks over the whole video, then per word."""
