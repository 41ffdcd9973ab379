"""EfficientAD: a student and an autoencoder miss what the teacher sees."""
