"""The benchmark of gtask: the cost of a call in time and in instructions, beside the alternatives of a gevent program.

``bin/bench`` runs it, and docs/performance.rst has its figures. Nothing in ``gtask`` imports it.
"""
