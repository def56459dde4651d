"""A small web application with Bottle."""

import json
import os

import bottle

from gtask import Cancelled
from gtask.integrations.bottle import GTaskPlugin

application = bottle.Bottle()
application.config.update({"gtask.url": os.environ["JOBS"], "gtask.max_workers": 4, "gtask.name": "bottle"})
application.install(GTaskPlugin())


@application.get("/")
def nothing():
    return "nothing"


@application.get("/pids")
def pids(gtask):
    return json.dumps([os.getpid(), gtask.call("pid")])


@application.get("/double/<number:int>")
def double(number, worker):
    return str(worker.double(number))


@application.get("/hang", gtask_cancel_on_disconnect=True)
def hang(worker):
    try:
        return worker.hang()
    except Cancelled:
        return bottle.HTTPResponse(status=499)
