"""Callbacks: what is sent to the backend, when, and how."""
