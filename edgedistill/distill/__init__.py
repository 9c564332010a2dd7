"""How does it learn? Losses, schedules and the training engine."""
