"""What a change to an input may look like: frozen values with pure functions."""
