"""Where pixels sit on the input, and what they see of it."""
