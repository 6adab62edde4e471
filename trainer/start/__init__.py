"""What training starts from: first weights, or a network of the other size grown or pruned."""
