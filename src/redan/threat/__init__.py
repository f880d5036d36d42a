"""The threat-model file: what it may say, how it is read, and what follows from it."""
