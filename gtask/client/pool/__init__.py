"""Which caller gets which worker, and how many workers there are."""
