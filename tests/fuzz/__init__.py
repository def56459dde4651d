"""Hostile bytes for all that reads bytes of a peer: what ``bin/fuzz`` does."""
