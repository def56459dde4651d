"""A small web application without a framework; started as a program it serves itself, with gevent.pywsgi."""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402

from gevent.pywsgi import WSGIServer  # noqa: E402

import gtask  # noqa: E402
from gtask.integrations.wsgi import watched  # noqa: E402

client = gtask.Client(os.environ["JOBS"], max_workers=4, name="pywsgi")


def application(environ, start_response):
    page, _, argument = environ["PATH_INFO"][1:].partition("/")
    answer = "nothing"
    if page == "pids":
        answer = json.dumps([os.getpid(), client.call("pid")])
    elif page == "double":
        answer = str(client.call("double", int(argument)))
    elif page == "hang":
        try:
            with watched(environ, client.checkout()) as worker:
                answer = worker.hang()
        except gtask.Cancelled:
            answer = "for nobody"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer.encode()]


if __name__ == "__main__":
    server = WSGIServer(("127.0.0.1", 0), application, log=None)
    server.start()
    print(f"Listening at: http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
