"""Models that may refuse an input: detectors of attacks, calibrated on clean rows, and what they are worth."""
