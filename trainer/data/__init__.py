"""Pairs of pictures: which files, read and reported, kept, cut into batches; and what weights say of them."""
