"""The work of one job: calls the stages in order, saves checkpoints, puts the result together."""
