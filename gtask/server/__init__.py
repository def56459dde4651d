"""The side that does the work: a master that forks, and workers that call. Never imports gevent."""
