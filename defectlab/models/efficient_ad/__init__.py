"""EfficientAD: anomalies are where a student differs from a teacher and from an autoencoder."""
