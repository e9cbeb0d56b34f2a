"""The audit webhook of Kubernetes: `audit.k8s.io` EventLists.

The API server sends a list again after any answer but success, and then drops it: one event that cannot be read must
not have the others lost, so that nothing that arrived whole is refused for what it says.
"""

from flask import Response

from tlog.api.answer import json_answer
from tlog.api.route import Call
from tlog.receivers.receive import body, listed, receiver, take


def take_kubernetes(call: Call) -> Response:
    """Answer `POST /ingest/kubernetes`."""
    return json_answer(take(call, "kubernetes", listed(body(), "items")))


ROUTES = (receiver("/ingest/kubernetes", take_kubernetes, "Take audit events of Kubernetes"),)
