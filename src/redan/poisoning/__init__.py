"""Attacks on the training set: samples in, samples out, with the exact list of the rows that are not as they were."""
