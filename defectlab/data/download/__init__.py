"""Public data sets on request: addresses, archives, unpacking."""
