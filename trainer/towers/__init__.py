"""The frozen judges, CLIP and VGG-19: built, filled from files of every kind, made cheap to pass gradients through."""
