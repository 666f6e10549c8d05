"""A job's result as a file: subtitles, a transcript, a table, speakers' turns. Knows nothing of HTTP, jobs or Ray."""
