"""What the workers run."""

import hashlib
import hmac
import os


def _scrypt(password, salt):
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


def hash(password):
    salt = os.urandom(16)
    return salt.hex() + _scrypt(password, salt).hex()


def verify(crypted, password):
    salt, expected = bytes.fromhex(crypted[:32]), bytes.fromhex(crypted[32:])
    if not hmac.compare_digest(_scrypt(password, salt), expected):
        raise ValueError("this is another password")
    return True
