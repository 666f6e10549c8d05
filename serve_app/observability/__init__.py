"""What operators see of the server: metrics, traces, and one log line at the end of each run."""
