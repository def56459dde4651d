"""Django's own tests: see run.py."""
