"""Files of AWS CloudTrail, as `tlog-client import cloudtrail` sends them: `{"Records": […]}`."""

from flask import Response

from tlog.api.answer import json_answer
from tlog.api.route import Call
from tlog.receivers.receive import body, listed, receiver, take


def take_cloudtrail(call: Call) -> Response:
    """Answer `POST /ingest/cloudtrail`."""
    return json_answer(take(call, "cloudtrail", listed(body(), "Records")))


ROUTES = (receiver("/ingest/cloudtrail", take_cloudtrail, "Take records of CloudTrail"),)
