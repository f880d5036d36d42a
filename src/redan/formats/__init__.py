"""Models as they come in files, read without trusting them, and as torch modules where they can be."""
