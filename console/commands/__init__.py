"""One small file a command; what takes time to import is imported inside the function."""
