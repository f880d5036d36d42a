"""What redan can do, as literal tables: attacks, poisoners, detectors, each with what it needs and its paper."""
