"""Callbacks: what is told to the backend, the outbox that keeps what is owed, and who sends it."""
