"""The side that calls: a pool of connections, and checkouts that make calls look local."""
