"""Empty: importing a pretrained model from here fails, as it should."""
