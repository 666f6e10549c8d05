"""Exports a job's result: subtitles, transcript, table, speakers' turns. Knows nothing of HTTP, jobs or Ray."""
