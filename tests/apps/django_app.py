"""A small web application with Django, in one file."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import path

import gtask
from gtask.integrations.django import client, clients
from gtask.integrations.wsgi import cancel_on_disconnect

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["127.0.0.1"],
    SECRET_KEY="none",
    GTASK={
        "default": {"ADDRESS": os.environ["JOBS"], "MAX_WORKERS": 4, "NAME": "django"},
        "slow": {"ADDRESS": os.environ["JOBS"], "TIMEOUT": None},
    },
)


def nothing(request):
    return HttpResponse("nothing")


def pids(request):
    return JsonResponse([os.getpid(), client.call("pid")], safe=False)


def double(request, number):
    with client.checkout() as worker:
        return HttpResponse(worker.double(number))


def hang(request):
    try:
        with clients["slow"].checkout() as worker, cancel_on_disconnect(request.environ, worker):
            return HttpResponse(worker.hang())
    except gtask.Cancelled:
        return HttpResponse(status=499)


urlpatterns = [path("", nothing), path("pids", pids), path("double/<int:number>", double), path("hang", hang)]

application = get_wsgi_application()
