"""What the workers run: one instance, and so one database connection, in each of them."""

import sqlite3


class Bank:
    def __init__(self):
        self.database = sqlite3.connect("bank.db", isolation_level=None)
        self.database.execute(
            "CREATE TABLE IF NOT EXISTS accounts"
            " (name TEXT PRIMARY KEY, cents INTEGER CONSTRAINT solvency CHECK (cents >= 0))"
        )

    def execute(self, sql, *parameters):
        return self.database.execute(sql, parameters).fetchall()

    def checkout_done(self):
        """Runs after each checkout: what a caller left open does not reach the next one."""
        self.database.rollback()
