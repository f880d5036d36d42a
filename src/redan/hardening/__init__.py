"""Training that makes a model hold: adversarial training and what keeps it honest."""
