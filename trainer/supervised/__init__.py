"""The loss of the bundled weights: the distance to a picture that a noise-aware pyramid has made."""
