"""Stop, and go on."""
