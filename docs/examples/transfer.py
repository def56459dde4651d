"""A program that makes transactions, each of them through one checkout."""

import sqlite3

import gtask

client = gtask.Client("unix:bank.sock", timeout=5)

MOVE = "UPDATE accounts SET cents = cents + ? WHERE name = ?"


def transfer(cents, payer, payee):
    with client.checkout() as bank:  # all in one worker, in one transaction
        bank.execute("BEGIN IMMEDIATE")
        bank.execute(MOVE, cents, payee)
        bank.execute(MOVE, -cents, payer)  # raises if the payer has not got so much
        bank.execute("COMMIT")


client.call("execute", "INSERT INTO accounts VALUES ('alice', 500), ('bob', 0)")
transfer(300, "alice", "bob")
try:
    transfer(300, "alice", "bob")
except sqlite3.IntegrityError as error:  # the worker's own exception
    print("no transfer:", error)

for name, cents in client.call("execute", "SELECT * FROM accounts ORDER BY name"):
    print(name, cents)
