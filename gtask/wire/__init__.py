"""What is said between a client and a worker. Pure: no sockets, no fork, no gevent, no clock."""
