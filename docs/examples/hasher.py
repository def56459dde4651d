"""What the workers run."""

from argon2 import PasswordHasher


def setup():
    """Runs once in each worker, before its first call."""
    global argon2
    argon2 = PasswordHasher()


def hash(password):
    return argon2.hash(password)


def verify(crypted, password):
    return argon2.verify(crypted, password)
