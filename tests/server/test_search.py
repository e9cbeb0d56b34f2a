"""Entries are found by who did what, and by words; each hit is proven, and what was not looked at is said."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from damaging import lose
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import JSON, LOG_NAME, NDJSON, PATIENCE, Answer, Segment, Server, start, tell, tlog, until

from tlog.config import Config
from tlog.files import exclusive
from tlog.formats.known import format_of
from tlog.search.terms import FIELDS
from tlog.store.connection import connect
from tlog.store.control import ControlStore
from tlog.store.search import MOST_LOOKED_AT, Index, Indexed, Span, State
from tlog_client import Log
from tlog_core.checkpoint import open_checkpoint
from tlog_core.commitment import Opening, verify_commitment
from tlog_core.encoding import canonicalize, decode_base64
from tlog_core.entry import parse_entry
from tlog_core.merkle import EMPTY_ROOT, Hash, leaf_hash
from tlog_core.proof import verify_inclusion
from tlog_core.receipt import verify_receipt

REAL = os.environ.get("TLOG_EVENTS")
AT = 1_767_323_045_000

Starting = Callable[..., Server]


def event(number: int, **more: Any) -> dict[str, Any]:
    return {
        "time": (AT + 1_000 * number) / 1_000,
        "actor": ["ann", "bob"][number % 2],
        "action": "refund",
        "target": f"orders/{number}",
        "outcome": "failed" if number % 5 == 0 else "ok",
        "source": "192.0.2.7",
        "note": f"Ordinary Grüße no{number}",
        **more,
    }


def log_all(segment: Segment, *events: Any) -> None:
    segment.append(b"".join(json.dumps(one).encode() + b"\n" for one in events), NDJSON)


def ask(segment: Segment, **terms: Any) -> dict[str, Any]:
    answer = requests.get(f"{segment.url}/entries", params={**terms}, timeout=PATIENCE)
    assert answer.status_code == 200, answer.content
    page: dict[str, Any] = answer.json()
    return page


def indexed(segment: Segment) -> bool:
    page = ask(segment, before=0)
    return bool(page["indexed"] == page["size"])


def find(segment: Segment, **terms: Any) -> list[int]:
    """Return the indexes of all that is found, page by page, each hit verified, once all is indexed."""
    until(lambda: indexed(segment), "the index to come to the end")
    found: list[int] = []
    while True:
        page = ask(segment, **terms)
        found += verified(segment, page)
        if page["next"] is None:
            assert found == sorted(set(found), reverse=True)
            return found
        terms["before"] = page["next"]


def verified(segment: Segment, page: dict[str, Any]) -> list[int]:
    """Return the indexes of the hits of a page after checking each by the means of any client."""
    checkpoint = open_checkpoint(page["checkpoint"].encode(), segment.key)
    assert checkpoint.size == page["size"] >= page["indexed"]
    for hit in page["entries"]:
        entry = hit["entry"].encode()
        is_json = hit["payload_type"] == JSON
        verify_commitment(
            parse_entry(entry).commitment,
            opening=Opening(decode_base64(hit["opening"])),
            payload_type=hit["payload_type"],
            payload=canonicalize(json.dumps(hit["payload"]).encode()) if is_json else decode_base64(hit["payload"]),
        )
        verify_inclusion(
            leaf=leaf_hash(entry),
            index=hit["index"],
            size=page["size"],
            proof=[Hash(decode_base64(one)) for one in hit["proof"]],
            root=checkpoint.root,
        )
    return [hit["index"] for hit in page["entries"]]


def refused(segment: Segment, **terms: Any) -> str:
    answer = requests.get(f"{segment.url}/entries", params={**terms}, timeout=PATIENCE)
    assert answer.status_code == 400, answer.content
    return str(answer.json()["detail"])


# What is found


# Of the session, as its server is: tests of a module may be taken apart, and it would be made twice.
@pytest.fixture(scope="session")
def ledger(server: Server) -> Segment:
    """Twenty events, an opaque payload, and values that are not objects."""
    segment = server.create("ledger")
    log_all(segment, *map(event, range(20)))
    segment.append(b"\x00ann refund", "application/octet-stream")
    log_all(segment, "ann", [1, {"deep": [4711]}], {"actor": 'a "quoted" OR b*', "actors": "-NEAR(x"}, {"actor": "Ann"})
    return segment


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        ({"actor": "ann"}, [*range(18, -1, -2)]),
        ({"actor": "Ann"}, [24]),
        ({"actor": "an"}, []),
        ({"actor": "an*"}, [*range(18, -1, -2)]),
        ({"actor": "*"}, [24, 23, *range(19, -1, -1)]),
        ({"actor": "ann", "outcome": "failure"}, [10, 0]),
        ({"actor": "ann", "outcome": "failure", "before": 10}, [0]),
        ({"actor": "ann", "outcome": "failure", "start": 1}, [10]),
        ({"action": "refund", "target": "orders/1*"}, [*range(19, 9, -1), 1]),
        ({"action": "nothing"}, []),
        ({"source": "192.0.2.7", "limit": 7}, [*range(19, -1, -1)]),
        ({"since": AT + 3_000, "until": AT + 5_000}, [4, 3]),
        ({"since": AT + 3_000, "until": AT + 9_000, "actor": "bob"}, [7, 5, 3]),
        ({"until": AT}, []),
        ({"since": AT + 60_000}, [24, 23, 22, 21, 20]),
        ({"q": "grüße"}, [*range(19, -1, -1)]),
        ({"q": "GRÜSSE no3"}, [3]),
        ({"q": "Gru\u0308ße-no4!"}, [4]),
        ({"q": "note"}, []),
        ({"q": "no"}, []),
        ({"q": "4711"}, [22]),
        ({"q": "ann"}, [24, 21, *range(18, -1, -2)]),
        ({"q": 'near"x'}, [23]),
        ({"q": "near y"}, []),
        ({"q": "near x or"}, [23]),
        ({"actor": 'a "quoted" OR b*'}, [23]),
        ({"q": "actor=616e6e"}, []),
        ({"before": 2}, [1, 0]),
        ({"q": "ann", "since": 2**63 - 1}, []),
    ],
    ids=str,
)
def test_what_has_all_that_is_asked_for_is_found_latest_first(
    ledger: Segment, terms: dict[str, Any], found: list[int]
) -> None:
    assert find(ledger, **terms) == found


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"outcome": "ok"}, "success or failure"),
        ({"actor": ""}, "1 to 1024 characters"),
        ({"q": "x" * 1_025}, "1 to 1024 characters"),
        ({"q": "-- *"}, "no word"),
        ({"since": "2026-01-01"}, "since"),
        ({"until": "-1"}, "until"),
        ({"actor": "ann", "limit": 0}, "limit"),
        ({"actor": ["ann", "bob"]}, "each once"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_is_refused_with_what_to_do(ledger: Segment, terms: dict[str, Any], said: str) -> None:
    assert said in refused(ledger, **terms)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([*FIELDS, "q", "since", "before"]), st.binary(min_size=1, max_size=40))
def test_whatever_bytes_are_asked_for_there_is_an_answer_or_a_refusal(ledger: Segment, name: str, value: bytes) -> None:
    escaped = "".join(f"%{byte:02x}" for byte in value)
    answer = requests.get(f"{ledger.url}/entries?{name}={escaped}", timeout=PATIENCE)
    assert answer.status_code in (200, 400), answer.content


def test_a_search_for_very_many_words_is_answered(ledger: Segment) -> None:
    assert find(ledger, q=" ".join(f"{n}" for n in range(260))) == []


def test_the_words_of_the_beginning_of_a_large_payload_are_found_and_the_payload_is_shown(segment: Segment) -> None:
    body = json.dumps({"actor": "ann", "first": "begins", "rest": "x " * 400_000, "zlast": "ends"}).encode()
    for _ in range(3):
        segment.append(body)
    assert find(segment, q="begins", limit=2) == [2, 1, 0]
    assert find(segment, q="ends") == []


def test_a_page_of_large_payloads_ends_early_and_the_next_goes_on(segment: Segment) -> None:
    for number in range(20):
        segment.append(json.dumps({"actor": "ann", "n": number, "rest": "x" * 1_000_000}).encode())
    until(lambda: indexed(segment), "the index to come to the end")
    first = ask(segment, actor="ann")
    assert 1 < len(first["entries"]) < 20
    rest = ask(segment, actor="ann", before=first["next"])
    assert [*verified(segment, first), *verified(segment, rest)] == [*range(19, -1, -1)]


def test_an_event_of_a_known_format_is_found_by_its_fields(segment: Segment) -> None:
    lines = (Path(__file__).parent.parent / "samples" / "kubernetes.jsonl").read_bytes().splitlines()
    segment.append(b"\n".join(lines), NDJSON)
    events = [json.loads(line) for line in lines]
    for index, one in enumerate(events):
        found = find(segment, **terms_of(one))
        assert index in found
        assert all(terms_of(events[place]) | terms_of(one) == terms_of(events[place]) for place in found)


def terms_of(event: Any) -> dict[str, Any]:
    """Return by what an event is found: all its fields, and its time."""
    fields = format_of(event).fields(event)
    times = {} if fields.time is None else {"since": fields.time, "until": fields.time + 1}
    return {name: getattr(fields, name) for name in FIELDS if getattr(fields, name) is not None} | times


def test_the_client_finds_the_same_with_receipts(ledger: Segment, tmp_path: Path) -> None:
    expected = find(ledger, actor="ann", q="Grüße")
    with Log(ledger.url, ledger.key, state=tmp_path) as log:
        found = log.search(actor="ann", q="Grüße", limit=3)
        assert found.indexed == found.size
        for index, (opened, receipt) in zip(expected, found, strict=True):
            assert (opened.index, opened.event()["actor"]) == (index, "ann")
            verify_receipt(receipt, key=ledger.key, payload=opened.payload)


@pytest.mark.skipif(REAL is None, reason="TLOG_EVENTS names no folder of real CloudTrail and Kubernetes events")
def test_each_real_event_is_found_by_its_fields(segment: Segment) -> None:
    folder = Path(REAL or "")
    events = [json.loads(line) for path in sorted(folder.rglob("*.jsonl")) for line in path.read_bytes().splitlines()]
    for path in sorted(folder.rglob("*.json")):
        events += json.loads(path.read_bytes())["Records"]
    for first in range(0, len(events), 1_000):
        log_all(segment, *events[first : first + 1_000])
    until(lambda: indexed(segment), "the index to come to the end")

    def is_found(index: int) -> bool:
        page = ask(segment, **terms_of(events[index]), start=index, before=index + 1)
        return verified(segment, page) == [index]

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(is_found, range(len(events))))


# Following


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that is not expected to find all well."""
    running = start(tmp_path_factory.mktemp("own") / "data")
    yield running
    running.kill()


def test_nothing_is_made_for_a_segment_that_nobody_searches(server: Server, segment: Segment) -> None:
    log_all(segment, *map(event, range(3)))
    assert len(segment.entries(0, 3)) == 3
    assert not [path for path in server.data.rglob(f"*{segment.name}*") if path.suffix == ".db"]


def test_a_segment_into_which_events_are_routed_has_an_index_before_anyone_searches(own: Server) -> None:
    body = (Path(__file__).parent.parent / "samples" / "kubernetes.jsonl").read_bytes()
    sent = own.request("POST", "/ingest/json", body, {"Content-Type": NDJSON})
    assert (sent.status, sent.json()["logged"]) == (200, len(body.splitlines())), sent.body
    said = f"{sent.json()['logged']} of {sent.json()['logged']} entries indexed"
    until(lambda: said in tlog("search", "status", "kubernetes", "--data", own.data).stdout, "the events to be indexed")


def test_what_is_logged_is_found_within_a_second_where_there_is_little_to_do(segment: Segment) -> None:
    assert find(segment, actor="ann") == []
    waits = []
    for number in range(1, 6):
        log_all(segment, event(0))
        began = time.monotonic()
        wait_for(segment, number)
        waits.append(time.monotonic() - began)
    assert sorted(waits)[2] < 1


def wait_for(segment: Segment, count: int) -> None:
    until(lambda: len(ask(segment, actor="ann")["entries"]) == count, "the event to be found")


def test_pages_neither_repeat_nor_leave_out_anything_while_the_segment_grows(segment: Segment) -> None:
    log_all(segment, *map(event, range(50)))
    find(segment, action="refund")
    found: list[int] = []
    before: dict[str, int] = {}
    while True:
        page = ask(segment, action="refund", limit=7, **before)
        found += verified(segment, page)
        if page["next"] is None:
            break
        before = {"before": page["next"]}
        log_all(segment, event(0), event(1))
    assert found == [*range(49, -1, -1)]


def test_what_was_not_looked_at_is_said_and_built_by_command(start_server: Starting, tmp_path: Path) -> None:
    # As if the process that follows were far behind.
    (tmp_path / "data").mkdir()
    with exclusive(Config(tmp_path / "data").following):
        server = start_server()
        segment = server.create("payments")
        log_all(segment, *map(event, range(4)))
        page = ask(segment, actor="ann")
        assert (page["entries"], page["indexed"], page["size"], page["next"]) == ([], 0, 4, None)
        assert "4 of 4 entries indexed" in tell("search", "build", "payments", "--data", server.data)
        log_all(segment, event(4))
        page = ask(segment, actor="ann")
        assert (verified(segment, page), page["indexed"], page["size"]) == ([2, 0], 4, 5)
        assert "payments: 4 of 5 entries indexed" in tell("search", "status", "--data", server.data)
    assert find(segment, actor="ann") == [4, 2, 0]


def test_a_server_killed_in_the_middle_of_indexing_goes_on_from_there(start_server: Starting) -> None:
    server = start_server()
    segment = server.create("payments")
    log_all(segment, *map(event, range(8_000)))
    until(lambda: ask(segment, before=0)["indexed"], "the index to have begun")
    server.kill()
    start_server(port=server.port)
    assert 0 < ask(segment, before=0)["indexed"] < 8_000
    assert find(segment, actor="ann", limit=1_000) == [*range(7_998, -1, -2)]
    assert find(segment, q="no7777") == [7_777]


def test_an_index_that_grew_with_its_segment_is_the_one_that_is_built_of_it(own: Server) -> None:
    segment = own.create("grown")
    for number in range(1, 40):
        log_all(segment, *(event(number + more) for more in range(number)))
        segment.append(b"\xff", "application/octet-stream")
        ask(segment, actor="ann")
    find(segment, actor="ann")
    grown = contents(own.data / "search" / "grown.db")
    tell("search", "erase", "grown", "--data", own.data)
    tell("search", "build", "grown", "--data", own.data)
    assert contents(own.data / "search" / "grown.db") == grown
    assert len(grown["moment"]) == 819


def contents(index: Path) -> dict[str, list[Any]]:
    """Return all that an index says."""
    with closing(connect(index)) as connection:
        connection.execute("create virtual table temp.term using fts5vocab(main, word, 'instance')")
        tables = {"state": "1", "moment": "1", "block": "1", "temp.term": "term, doc"}
        read = {name: f"select * from {name} order by {order}" for name, order in tables.items()}  # noqa: S608
        return {name: connection.execute(statement).fetchall() for name, statement in read.items()}


def test_a_page_looks_at_so_many_entries_only_and_the_next_goes_on(tmp_path: Path) -> None:
    Index.create(tmp_path / "index.db", "1")
    size = 3 * MOST_LOOKED_AT
    with closing(Index(tmp_path / "index.db", "1")) as index:
        # Of no stretch of entries can be said that none is of the time asked for.
        entries = [Indexed(place, 2_000 * (place % 2), "x") for place in range(size)]
        entries[7] = Indexed(7, 1_000, "x")
        index.add(0, State(size, EMPTY_ROOT), entries)
        pages, before = 0, size
        while (page := index.find([("x", False)], Span(before=before, since=1_000, until=2_000), 10)).next is not None:
            assert page.places == []
            assert before - page.next == MOST_LOOKED_AT
            pages, before = pages + 1, page.next
        assert (pages, page.places, page.indexed) == (2, [7], size)


# Losing it loses nothing


def garble(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in range(4_096, len(content), 512):
        content[place : place + 64] = b"\xa5" * 64
    path.write_bytes(content)


def run_sql(path: Path, *statements: str) -> None:
    with closing(connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "garbled": garble,
    "empty": lambda path: path.write_bytes(b""),
    "no database": lambda path: path.write_bytes(b"x" * 8_192),
    "cut off": lambda path: os.truncate(path, 4_096),
    "gone": lambda path: path.unlink(),
    "all gone": lambda path: shutil.rmtree(path.parent),
    "without a table": lambda path: run_sql(path, "drop table moment"),
    "without a state": lambda path: run_sql(path, "delete from state"),
    "by another version": lambda path: run_sql(path, "update state set version = '0'"),
    "of another history": lambda path: run_sql(path, "update state set root = zeroblob(32)"),
    "ahead of the log": lambda path: run_sql(path, "update state set indexed = 99"),
    "with words of others": lambda path: run_sql(path, "insert into word (rowid, words) values (11, 'actor=616e6e')"),
    "with other times": lambda path: run_sql(path, "update moment set time = time - 1000000"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_index_that_cannot_be_used_is_made_anew(own: Server, damage: str) -> None:
    segment = own.create(f"s{[*DAMAGE].index(damage)}")
    log_all(segment, *map(event, range(12)))
    terms = {"actor": "ann", "until": AT + 8_000}
    assert find(segment, **terms) == [6, 4, 2, 0]
    path = own.data / "search" / f"{segment.name}.db"
    # What stands in the WAL would hide it.
    run_sql(path, "pragma wal_checkpoint(truncate)")
    with exclusive(path.with_suffix(".lock")):
        DAMAGE[damage](path)
    # Damage that changes no answer may be seen, and the index made anew, at any time after.
    until(lambda: again(segment, **terms) == [6, 4, 2, 0], "the same to be found")
    log_all(segment, event(0))
    until(lambda: again(segment, **terms) == [12, 6, 4, 2, 0], "the further one to be found")
    assert own.request("GET", "/readyz").status == 200


def again(segment: Segment, **terms: Any) -> list[int]:
    """Return what is found now, nothing if the index is being made."""
    answer = requests.get(f"{segment.url}/entries", params={**terms}, timeout=PATIENCE)
    assert answer.status_code in (200, 503), answer.content
    page = answer.json()
    is_whole = answer.status_code == 200 and page["indexed"] == page["size"]
    return verified(segment, page) if is_whole else []


def test_an_erased_index_gives_its_room_back_and_the_next_search_begins_another(own: Server) -> None:
    segment = own.create("erased")
    log_all(segment, *map(event, range(300)))
    assert len(find(segment, actor="ann", limit=1_000)) == 150
    # As a crash leaves it, with a write-ahead log.
    with closing(connect(own.data / "search" / "erased.db")) as held:
        held.execute("update state set indexed = indexed")
        assert "erased: index erased" in tell("search", "erase", "erased", "--data", own.data)
        assert [path.name for path in (own.data / "search").glob("erased.*")] == ["erased.lock"]
    assert "has no index" in tlog("search", "status", "erased", "--data", own.data).stderr
    log_all(segment, event(0))
    assert len(find(segment, actor="ann", limit=1_000)) == 151


def test_commands_refuse_a_segment_that_is_not_there(own: Server) -> None:
    for command in ("build", "status", "erase"):
        done = tlog("search", command, "../segments/x", "--data", own.data)
        assert (done.exit_code, "no such segment" in done.stderr) == (2, True)


def test_a_backup_has_no_index_and_a_check_looks_at_none(own: Server, tmp_path: Path) -> None:
    segment = own.create("backed-up")
    log_all(segment, *map(event, range(4)))
    assert find(segment, actor="ann") == [2, 0]
    tell("backup", tmp_path / "backup", "--data", own.data)
    assert not (tmp_path / "backup" / "search").exists()
    garble(own.data / "search" / "backed-up.db")
    tell("fsck", "backed-up", "--data", own.data)


# What is special


def test_what_is_not_as_usual_is_searched_as_far_as_that_goes(start_server: Starting) -> None:
    options = ["--scrub-rate", "0"]
    server = start_server(options=options)
    segments = [server.create(name) for name in ("sealed", "frozen", "lossy", "damaged", "late")]
    sealed, frozen, lossy, damaged, late = segments
    for segment in segments:
        log_all(segment, *map(event, range(6)))
    assert find(lossy, actor="ann") == [4, 2, 0]
    assert server.request("PUT", "/segments/sealed/seal", b"").status == 200
    assert server.stop() == 0

    config = Config(server.data)
    with closing(ControlStore.open(config.control)) as control:
        ids = {row.name: row.id for row in control.list()}
    config.anchor_of(ids["frozen"]).unlink()
    lose(config.segment(ids["lossy"]), {2, 3})
    run_sql(
        config.segment(ids["damaged"]),
        "update payload set payloads = unhex(replace(hex(payloads), hex('ann'), hex('joe')))",
    )
    # On a full disk an index takes no room.
    full = start_server(port=server.port, options=[*options, "--reserve-mib", str(1 << 30)])
    assert ask(late, actor="ann")["indexed"] == 0
    time.sleep(0.5)
    assert ask(late, actor="ann")["indexed"] == 0
    assert full.stop() == 0

    again = start_server(port=server.port, options=options)
    assert frozen.post(b"1").status_code == 409
    assert find(late, actor="ann") == find(sealed, actor="ann") == find(frozen, actor="ann") == [4, 2, 0]
    assert lossy.get("/entries/2").status_code == 410
    assert find(lossy, actor="ann") == [4, 0]
    tell("search", "erase", "lossy", "--data", server.data)
    assert find(lossy, actor="ann") == [4, 0]
    assert find(lossy, before=6) == [5, 4, 1, 0]
    ask(damaged, actor="joe")
    until(lambda: any(line["event"] == "not indexed" for line in again.logged()), "the damage to be said")
    page = ask(damaged, actor="joe")
    assert (page["entries"], page["indexed"], page["size"]) == ([], 0, 6)


# Who may


def test_only_who_may_read_payloads_may_search_and_it_is_on_record(start_server: Starting, tmp_path: Path) -> None:
    data = tmp_path / "data"
    tell("segment", "create", "payments", "--data", data, "--log-name", LOG_NAME)
    (tmp_path / "policy.toml").write_text(POLICY)
    tell("policy", "apply", tmp_path / "policy.toml", "--data", data)
    tokens = {name: tell("token", "issue", name, "--data", data) for name in ("till", "ann", "mallory")}
    server = start_server(guarded=True, log_name=None)

    def say(who: str, method: str, path: str, body: bytes | None = None) -> Answer:
        headers = {"Authorization": f"Bearer {tokens[who]}", "Content-Type": JSON}
        return server.request(method, f"/segments/{path}", body, headers if body else {**headers, "Content-Type": ""})

    assert say("till", "POST", "payments/entries", json.dumps(event(0)).encode()).status == 201
    search = "payments/entries?actor=ann&q=Gr%C3%BC%C3%9Fe"
    for who in ("till", "mallory"):
        one, other = say(who, "GET", search), say(who, "GET", search.replace("payments", "missing"))
        assert one.status == other.status == 404
        assert masked(one) == masked(other)
    assert not (data / "search").exists()
    until(lambda: say("ann", "GET", search).json()["entries"], "the event to be found")
    assert say("ann", "GET", "payments/entries?actor=bob").json()["entries"] == []
    assert {path.stat().st_mode & 0o077 for path in (data / "search", *(data / "search").iterdir())} == {0}
    until(lambda: say("ann", "GET", "access/entries?before=9999").json()["entries"], "the record to be indexed")
    reads = [
        read for entry in say("ann", "GET", "access/entries").json()["entries"] for read in entry["payload"]["reads"]
    ]
    shown = [(one["by"], one["segment"], one["search"], one["indexes"]) for one in reads if "search" in one]
    asked = {"actor": "ann", "q": "Grüße"}
    assert ("ann", "payments", asked, [0]) in shown
    assert ("ann", "payments", {"actor": "bob"}, []) in shown
    assert not any(by != "ann" for by, *_ in shown)


POLICY = """
[[rule]]
name = "the till writes"
roles = ["writer"]
principals = ["till"]
segments = ["payments"]

[[rule]]
name = "ann reads"
roles = ["auditor"]
principals = ["ann"]
segments = ["payments", "control", "access"]
"""


def masked(answer: Answer) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name != "request_id"}
