"""The observer of `tests/recorder.py` finds nothing wrong with an honest log, and whatever is wrong with another."""

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from live import JSON, NDJSON, start
from recorder import Recorder, Seen, check, opened

from tlog_core.errors import TlogError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a run with two segments has left, and what an outsider saw of it; one answer never came."""
    home = tmp_path_factory.mktemp("home")
    server, recorder = start(home / "data", workers=1), Recorder(home / "seen")
    for name in ("payments", "refunds"):
        segment = server.create(name)
        recorder.created(name, str(segment.key))
        for number in range(3):
            events = [b'{"%b":%d,"at":%d}' % (name.encode(), number, place) for place in range(1 + number)]
            key = f"{name}-{number}"
            sent = recorder.sent(name, events, key, batch=number > 0)
            receipt = segment.append(b"\n".join(events), NDJSON if number else JSON, key)
            if number < 2:
                recorder.receipt(sent, receipt)
            recorder.note(name, segment.note())
        recorder.entries(name, segment.get("/entries").content)
        recorder.entries(name, segment.get("/entries/1").content)
    server.kill()
    return home


@pytest.fixture
def data(home: Path, tmp_path: Path) -> Path:
    shutil.copytree(home, tmp_path / "home")
    return tmp_path / "home" / "data"


@pytest.fixture(scope="module")
def seen(home: Path) -> list[Seen]:
    return Recorder(home / "seen").seen()


def wrong(data: Path, seen: Sequence[Seen]) -> str:
    verdict = check(data, seen, data.with_name("copy"))
    return "\n".join([*verdict.wrong, *(f"{name} refuses: {why}" for name, why in verdict.refused.items())])


def damage(data: Path, statement: str) -> None:
    with sqlite3.connect(data / "control.db") as control:
        [(segment_id,)] = control.execute("select id from segment where name = 'payments'").fetchall()
    control.close()
    with sqlite3.connect(data / "segments" / f"{segment_id}.db") as segment:
        segment.execute(statement)
    segment.close()


def test_an_honest_log_is_found_honest_whether_or_not_an_answer_came(data: Path, seen: list[Seen]) -> None:
    assert wrong(data, seen) == ""


def test_a_log_that_went_back_is_found_out(data: Path, seen: list[Seen]) -> None:
    recorder = Recorder(data.with_name("later"))
    check(data, seen, data.with_name("lived"))
    with opened(data.with_name("lived")) as control, control._segments.use("payments") as segment:
        recorder.note("payments", segment.store.head().note)
    said = wrong(data, [*seen, *recorder.seen()])
    assert "payments: a head of size 7 was released, and now there is one of 6" in said


def test_an_opening_that_changed_is_named(data: Path, seen: list[Seen]) -> None:
    damage(data, "update payload set openings = zeroblob(32 * count)")
    assert "the payload or the opening of entry 0 is another" in wrong(data, seen)


def test_a_segment_that_cannot_be_read_refuses(data: Path, seen: list[Seen]) -> None:
    damage(data, "delete from bundle where start = 1")
    assert "payments refuses: CorruptError" in wrong(data, seen)


def test_an_entry_that_the_log_swallowed_or_made_up_is_named(data: Path, seen: list[Seen]) -> None:
    first = next(one for one in seen if one["kind"] == "sent" and one["segment"] == "payments")
    assert "were refused, and are there" in wrong(data, [*seen, {"kind": "refused", "number": first["number"]}])
    without = [one for one in seen if one.get("number") != first["number"]]
    assert "payments: 1 events are there that nobody sent" in wrong(data, without)


def test_what_is_in_the_wrong_segment_is_named(data: Path, seen: list[Seen]) -> None:
    first = next(one for one in seen if one["kind"] == "sent" and one["segment"] == "payments")
    moved = {**first, "segment": "refunds", "number": "other", "key": None}
    assert "payments: events of refunds are in it" in wrong(data, [*seen, moved])


def test_a_change_that_is_not_in_force_is_named(data: Path, seen: list[Seen]) -> None:
    recorder = Recorder(data.with_name("claims"))
    recorder.policy(2, "")
    recorder.sealed("payments")
    recorder.token(f"tlog_{'0' * 16}_{'A' * 43}")
    recorder.writer_key("someone+00000000+x")
    said = wrong(data, [*seen, *recorder.seen()])
    for claim in ("the policy of version 2", "payments is not sealed", "the token 0", "the key someone"):
        assert claim in said


def test_a_receipt_that_does_not_verify_is_not_taken(data: Path, seen: list[Seen]) -> None:
    forged = [
        {**one, "body": one["body"].replace('"index":0', '"index":1')} if one["kind"] == "receipt" else one
        for one in seen
    ]
    with pytest.raises(TlogError):
        check(data, forged, data.with_name("copy"))
