"""Backbones by name, from local weights. Listing and verifying weights needs no torch."""
