"""Backbone features on disk, computed once for all configurations that ask for them."""
