"""The process that accepts, forks and reaps."""
