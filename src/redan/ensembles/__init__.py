"""Several models that answer as one: attacked as a whole, and what one member's attack does to the others."""
