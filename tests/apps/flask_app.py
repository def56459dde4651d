"""A small web application with Flask: by an application factory, as large ones are made."""

import os

import flask

import gtask
from gtask.integrations.flask import GTask

jobs = GTask()


def create_app():
    app = flask.Flask(__name__)
    app.config.from_mapping(GTASK_URL=os.environ["JOBS"], GTASK_MAX_WORKERS=4, GTASK_NAME="flask")
    app.config.from_prefixed_env()  # FLASK_GTASK_MAX_WORKERS=2
    jobs.init_app(app)

    @app.get("/")
    def nothing():
        return "nothing"

    @app.get("/pids")
    def pids():
        return [os.getpid(), jobs.call("pid")]

    @app.get("/double/<int:number>")
    def double(number):
        with jobs.checkout() as worker:
            return str(worker.double(number))

    @app.get("/spin/<float:seconds>")
    def spin(seconds):
        return str(jobs.remote.spin(seconds))

    @app.get("/hang")
    def hang():
        with jobs.checkout(cancel_on_disconnect=True) as worker:
            return worker.hang()

    @app.errorhandler(gtask.Cancelled)
    def nobody_waits(error):
        return "", 499

    return app


application = create_app()
