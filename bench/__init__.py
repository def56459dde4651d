"""The benchmark of gtask: how long a call takes, and how many instructions, beside what else a gevent program could use.

``bin/bench`` runs it; docs/performance.rst has its figures and says how to repeat them. Nothing in ``gtask`` imports it.
"""
