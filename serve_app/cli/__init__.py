"""The command line `ml-server`, and what it needs beside the server: a client, a demo, a view of results."""
