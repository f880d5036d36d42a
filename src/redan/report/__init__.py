"""Views of a report: each reads evidence and nothing else."""
