"""DefectLab's runtime: scores images with an exported model. Needs numpy, Pillow and onnxruntime, and no torch."""
