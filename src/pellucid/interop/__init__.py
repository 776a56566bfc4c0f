"""Files and foreign frameworks: the model file."""
