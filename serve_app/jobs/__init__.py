"""What a job is: its values, states and progress."""
