"""Many calls at once: an executor, and map_unordered."""
