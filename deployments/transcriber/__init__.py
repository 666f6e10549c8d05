"""Speech recognition: chunks of at most half a minute become words with times."""
