"""The languages that a client can speak to a worker."""
