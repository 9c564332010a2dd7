"""What a check is made of: what is known of a model, what changed, and how each limit ends."""
