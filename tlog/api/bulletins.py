"""What monitors say of a segment: posting it, and reading it (spec/bulletin.md)."""

from flask import Response, request

from tlog.access import Action
from tlog.api.answer import TEXT, answer, json_answer
from tlog.api.body import read_body
from tlog.api.models import BulletinList, CarriedBulletin
from tlog.api.route import Call, Route
from tlog_core.bulletin import MAX_BULLETIN_BYTES


def post_bulletin(call: Call) -> Response:
    """Answer `POST /segments/<name>/bulletins`."""
    call.services.bulletins.take(call.segment, read_body(request))
    return answer(b"", TEXT, status=204)


def list_bulletins(call: Call) -> Response:
    """Answer `GET /segments/<name>/bulletins`."""
    found = call.services.bulletins.of(call.segment)
    return json_answer(BulletinList([CarriedBulletin(one.note.decode(), one.received, str(one.key)) for one in found]))


ROUTES = (
    Route(
        "POST",
        "/segments/<segment>/bulletins",
        Action.POST_BULLETIN,
        post_bulletin,
        "Post what a monitor says of the segment",
        gives={204: "text/plain"},
        takes={"text/plain": str},
        grows=True,
        most=MAX_BULLETIN_BYTES,
    ),
    Route(
        "GET",
        "/segments/<segment>/bulletins",
        Action.READ_CHECKPOINT,
        list_bulletins,
        "Read the latest that each monitor says of the segment",
        gives={200: (BulletinList,)},
    ),
)
