"""Cache of backbone features on disk, computed once for all configurations that use them."""
