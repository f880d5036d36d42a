"""A stand-in: adv-lib imports visdom for its live plots, which no benchmark draws."""
