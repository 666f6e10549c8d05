"""What operators see of the server: metrics, traces, the log line of each job's end."""
