"""Writing events, and reading entries with their payloads."""

from typing import Any, Final

import msgspec
from flask import Response, request

from tlog.access import Action
from tlog.api.answer import SECRET, json_answer, not_beyond, number, page, query
from tlog.api.body import ANY_TYPE, idempotency_key, read_events
from tlog.api.models import BatchReceipt, Entries, Entry, FoundEntries, Receipt
from tlog.api.reading import SEARCH, record_read
from tlog.api.route import Call, Route
from tlog.api.searching import answer_search, payload_json
from tlog.api.signed import SIGNED_TYPE
from tlog.config import DEFAULT_PAGE, MAX_PAGE
from tlog.errors import NoWitnessesError
from tlog.sequencer import Logged, Submission
from tlog.submit import append, commit_to, logged_under, read_page, verify_signatures
from tlog.witnesses.asker import Asker
from tlog_core.errors import MalformedError
from tlog_core.proof import prove_inclusion, prove_range

_PAGE: Final = ("start", "limit")


def log_events(call: Call) -> Response:
    """Answer `POST /segments/<name>/entries`."""
    asker = _asker(call)
    key = idempotency_key(request)
    events = read_events(request, call.services.canonicalize)
    submission = commit_to(
        writer=call.caller.principal.name,
        kind=events.kind,
        payloads=events.payloads,
        idempotency_key=key,
        signed=events.signed,
    )
    if submission.signed:
        keys = call.services.guard.writer_keys(submission.writer)
        verify_signatures(submission, origin=call.segment.row.origin, keys=keys)
    submission, logged = append(call.segment, submission, call.services.working.leave())
    call.services.metrics.appended()
    if asker is not None:
        with call.services.working.leave(), call.services.syncing.leave():
            head = asker.wait_for(call.segment, logged.start + len(logged.entries))
        logged = logged if head is None else logged_under(call.segment, logged, head)
    receipt = _batch_receipt(submission, logged) if events.batch else _receipt(submission, logged)
    return json_answer(receipt, status=201)


def _asker(call: Call) -> Asker | None:
    """Return who has the receipt cosigned, None if it is not to be; raise MalformedError or NoWitnessesError."""
    wanted = query(request, "cosigned").get("cosigned")
    if wanted not in (None, "true"):
        raise MalformedError("cosigned is true, or not there")
    if wanted is None:
        return None
    if call.services.asker is None:
        raise NoWitnessesError("this server has no witnesses to ask, and nothing was logged; leave out cosigned=true")
    return call.services.asker


def read_entry(call: Call, index: str) -> Response:
    """Answer `GET /segments/<name>/entries/<index>`."""
    place, size = number("index", index), call.segment.store.head().size
    not_beyond("index", place + 1, size)
    return json_answer(_page(call, place, place + 1)[0], caching=SECRET)


def read_entries(call: Call) -> Response:
    """Answer `GET /segments/<name>/entries`."""
    given = query(request, *_PAGE, *SEARCH)
    if not given.keys() <= {*_PAGE}:
        return answer_search(call, given)
    limit = page(given, default=DEFAULT_PAGE, most=MAX_PAGE)
    start, size = number("start", given.get("start", "0")), call.segment.store.head().size
    not_beyond("start", start, size)
    return json_answer(Entries(_page(call, start, min(start + limit, size))), caching=SECRET)


def _page(call: Call, start: int, end: int) -> list[Entry]:
    if start >= end:
        return []
    record_read(call, start, end)
    return [
        Entry(
            entry=entry.decode(),
            index=index,
            opening=payload.opening,
            payload=payload_json(payload),
            payload_type=payload.type,
        )
        for index, (entry, payload) in enumerate(read_page(call.segment, start, end), start)
    ]


def _receipt(submission: Submission, logged: Logged) -> Receipt:
    proof = prove_inclusion(index=logged.start, size=logged.size, node=logged.node)
    return Receipt(
        checkpoint=logged.note.decode(),
        entry=logged.entries[0].decode(),
        index=logged.start,
        opening=submission.openings[0],
        payload_type=submission.kind,
        proof=proof,
    )


def _batch_receipt(submission: Submission, logged: Logged) -> BatchReceipt:
    end, signed = logged.start + len(logged.entries), submission.signed
    proof = prove_range(start=logged.start, end=end, size=logged.size, node=logged.node)
    return BatchReceipt(
        checkpoint=logged.note.decode(),
        first_index=logged.start,
        left=proof.left,
        openings=submission.openings,
        right=proof.right,
        time=logged.time,
        writer=logged.writer,
        writer_sequence=signed[0].sequence if signed else msgspec.UNSET,
        writer_signatures=[one.signature for one in signed] if signed else msgspec.UNSET,
    )


ROUTES = (
    Route(
        "POST",
        "/segments/<segment>/entries",
        Action.APPEND,
        log_events,
        "Log one event, or a batch",
        gives={201: (Receipt, BatchReceipt)},
        takes={"application/json": Any, "application/x-ndjson": str, SIGNED_TYPE: str, ANY_TYPE: bytes},
        query=("cosigned",),
        headers={"Idempotency-Key": False},
        grows=True,
    ),
    Route(
        "GET",
        "/segments/<segment>/entries",
        Action.READ_PAYLOAD,
        read_entries,
        "Read entries with their payloads, or search them",
        gives={200: (Entries, FoundEntries)},
        query=(*_PAGE, *SEARCH),
    ),
    Route(
        "GET",
        "/segments/<segment>/entries/<index>",
        Action.READ_PAYLOAD,
        read_entry,
        "Read an entry with its payload",
        gives={200: (Entry,)},
    ),
)
