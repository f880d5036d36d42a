"""A stand-in: adv-lib imports torchvision for its perceptual distance, which no benchmark calls."""
