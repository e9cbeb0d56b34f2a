"""How schemathesis is to send what OpenAPI cannot describe; loaded by the command itself (see conforming.py)."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import schemathesis
from hypothesis import strategies as st

from tlog_core.encoding import canonical_json, encode_base64
from tlog_core.errors import MalformedError
from tlog_core.note import parse_verifier

_POLICY: Final = """[[rule]]
name = "root"
roles = ["admin", "approver"]
principals = ["root"]
segments = ["*", "control", "access"]
"""
_TEXT = st.text(alphabet=st.characters(codec="utf-8", exclude_characters='"\\', exclude_categories=["Cc"]), max_size=20)
_SCALARS = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | _TEXT
_EVENTS = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner), max_leaves=5)


def _batch(events: list[object]) -> bytes:
    return "".join(f"{json.dumps(event)}\n" for event in events).encode()


def _envelopes(signature: bytes, opening: bytes, payloads: list[object]) -> bytes:
    lines = [
        {
            "opening": encode_base64(opening),
            "payload": payload,
            "payload_type": "application/json",
            "writer_sequence": number,
            "writer_signature": encode_base64(signature),
        }
        for number, payload in enumerate(payloads)
    ]
    return b"".join(canonical_json(line) + b"\n" for line in lines)


def _sized(length: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=length, max_size=length)


_SOME = st.lists(_EVENTS, min_size=1, max_size=3)
schemathesis.openapi.media_type("application/octet-stream", st.binary(min_size=1, max_size=100))
schemathesis.openapi.media_type("application/x-ndjson", st.builds(_batch, _SOME))
schemathesis.openapi.media_type("application/vnd.tlog.signed", st.builds(_envelopes, _sized(68), _sized(32), _SOME))
schemathesis.openapi.media_type(
    "application/x-protobuf",
    st.binary(max_size=99).map(lambda name: b"\x0a\x02\x12\x00" + b"\x7a%c%b" % (len(name), name)),
)
schemathesis.openapi.media_type(
    "application/toml", st.builds(lambda text: f"# {text}\n{_POLICY}".encode(), _TEXT) | st.just(_POLICY.encode())
)


@schemathesis.hook
def filter_case(_: Any, case: schemathesis.Case[Any]) -> bool:
    """Leave out what no schema can tell from what is right: it is refused for a rule, or for want of witnesses."""
    path = {name: int(value) for name, value in (case.path_parameters or {}).items() if str(value).isdecimal()}
    body = case.body if isinstance(case.body, dict) else {}
    in_order = path.get("index", -1) < path.get("size", 2**63) and path.get("old", 0) <= path.get("new", 2**63)
    # What ends while it is still asked about is rightly not there.
    ends = 0 < _number(body, "days") < 0.01 or 0 <= _number(body, "overlap_days") < 0.01
    return in_order and "cosigned" not in (case.query or {}) and not _mistaken(body.get("vkey")) and not ends


def _number(body: Mapping[str, object], name: str) -> float:
    value = body.get(name)
    return value if isinstance(value, int | float) else 1.0


def _mistaken(vkey: object) -> bool:
    """Tell whether this looks like a key, and its ID is of another."""
    if not isinstance(vkey, str) or re.fullmatch(r"[^\s+]+\+[0-9a-f]{8}\+A[Q-Za-f][A-Za-z0-9+/]{42}", vkey) is None:
        return False
    try:
        parse_verifier(vkey)
    except MalformedError:
        return True
    return False
