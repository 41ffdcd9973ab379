"""PaDiM: a Gaussian of features at each position."""
