"""SubspaceAD: distance of patches to the principal subspace of good ones."""
