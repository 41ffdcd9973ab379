"""Preprocessing and augmentation of images for models, and the inverse geometry for maps and boxes."""
