"""The work of one job: stages called in order, checkpoints kept, the result put together."""
