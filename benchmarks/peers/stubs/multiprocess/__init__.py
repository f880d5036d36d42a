"""A stand-in: ART's AutoAttack imports multiprocess before it knows whether it will use it, which no benchmark asks."""
