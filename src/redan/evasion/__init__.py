"""Attacks that change inputs at inference: one a file, each a frozen value called with a referee and rows."""
