"""What a run leaves behind and how it is judged: statistics, requirements, the run folder."""
