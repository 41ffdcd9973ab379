"""From an image file to the tensor that a model sees, and the geometry of the way back."""
