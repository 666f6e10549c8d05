"""The manager, which admits jobs and watches over them, and the actors, each of which runs one job."""
