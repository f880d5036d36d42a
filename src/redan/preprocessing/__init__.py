"""Inputs transformed before the model sees them: each with the gradient an attacker who knows it would use."""
