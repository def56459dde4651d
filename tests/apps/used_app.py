"""A web application that calls a worker already while it is loaded, before gunicorn forks."""

import json
import os

import gtask

client = gtask.Client(os.environ["JOBS"], min_workers=1, max_workers=4, name="used")

FIRST = [os.getpid(), client.call("pid")]


def application(environ, start_response):
    answer = json.dumps({"first": FIRST, "pids": [os.getpid(), client.call("pid")], "calls": client.stats().calls})
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer.encode()]
