"""A program that hashes passwords and stays responsive."""

import gevent

import gtask

client = gtask.Client("unix:hasher.sock", timeout=5)

with client.checkout() as hasher:  # one worker, for this block alone
    crypted = hasher.hash("s3cret")  # blocks this greenlet only
    print("hashed:", crypted[:9])
    print("the right password:", hasher.verify(crypted, "s3cret"))  # the same worker

try:
    client.call("verify", crypted, "guess")  # check out, call, release
except gtask.RemoteError as error:
    print("a wrong one:", error)

greenlets = [gevent.spawn(client.call, "hash", password) for password in ("one", "two", "three")]
print("hashed at the same time:", len({greenlet.get() for greenlet in greenlets}))
