"""Training: learning-rate schedules, update rules, the loop and its snapshots."""
