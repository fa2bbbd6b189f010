"""What a run says: on the console, and in logs that other programs read."""
