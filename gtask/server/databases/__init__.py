"""Database drivers in workers."""
