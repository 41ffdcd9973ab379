"""Pure tensor functions on CPU and CUDA, without state."""
