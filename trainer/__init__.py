"""Training of the fusion network: data, targets, losses and the loop. Needs the extra ``pyldfusion[train]``."""
