"""For programs that use Django."""
