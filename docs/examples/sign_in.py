"""A program that hashes passwords and stays responsive."""

import gevent

import gtask

client = gtask.Client("unix:hasher.sock", timeout=5)

with client.checkout() as hasher:  # one worker, for this block alone
    crypted = hasher.hash("s3cret")  # blocks this greenlet only
    print("hashed:", len(crypted), "digits")
    print("the right password:", hasher.verify(crypted, "s3cret"))  # the same worker

try:
    client.call("verify", crypted, "guess")  # check out, call, release
except ValueError as error:  # the worker's own exception
    print("a wrong one:", error)

greenlets = [gevent.spawn(client.call, "hash", password) for password in ("one", "two", "three")]
print("hashed at the same time:", len({greenlet.get() for greenlet in greenlets}))
