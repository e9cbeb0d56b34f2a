"""Audit entries of OpenBao and Vault, one in a request or one a line.

The HTTP audit device of OpenBao sends each but once, and fails the request that it audits after any answer but success.
"""

from flask import Response

from tlog.api.answer import json_answer
from tlog.api.route import Call
from tlog.receivers.receive import body, concatenated, receiver, take


def take_vault(call: Call) -> Response:
    """Answer `POST /ingest/vault`."""
    return json_answer(take(call, "vault", concatenated(body())))


ROUTES = (receiver("/ingest/vault", take_vault, "Take audit entries of OpenBao or Vault"),)
