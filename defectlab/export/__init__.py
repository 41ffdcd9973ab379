"""Files of trained models for other runtimes, and the gate that compares them with the run's own scores and maps."""
