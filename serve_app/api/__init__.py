"""The HTTP edge: plain FastAPI over a `JobService`, testable without Ray."""
