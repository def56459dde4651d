"""gunicorn's processes say when they are ready: a signal that comes before that may be lost."""


def post_worker_init(worker):
    worker.log.info("Ready: %s", worker.pid)
