"""Runs attacks on rows, block by block: `attack`, and `run`, on which every verdict stands."""
