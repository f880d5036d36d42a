"""Attacks that copy a model through its answers: each an honest customer of a metered API."""
