"""The status of a server, and its metrics."""
