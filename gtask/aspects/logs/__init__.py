"""Log records: noticed in the worker, replayed at the caller."""
