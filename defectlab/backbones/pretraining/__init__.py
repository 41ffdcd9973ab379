"""How the bundled backbone was trained: images, crops, synthetic defects, the training itself."""
