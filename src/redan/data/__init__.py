"""The user's rows: `Samples`, and the readers that make them."""
