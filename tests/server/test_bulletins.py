"""Bulletins: a log carries what the monitors say whose keys its operator gave it, and can write none itself."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from house import House, lay
from live import LOG_NAME, Answer, Server, free_port, start, tell, tlog
from upgrading import make_earlier

from tlog.clock import now
from tlog.config import Config
from tlog.fsck.finding import Finding, Kind
from tlog.fsck.freeze import serious
from tlog.store.bulletin import BulletinRow
from tlog.store.connection import connect
from tlog.store.cosigned import Frozen
from tlog.store.segment import SegmentStore
from tlog_core.bulletin import MAX_BULLETIN_BYTES, Bulletin, Round, Tally, Verified, open_bulletin, sign_bulletin
from tlog_core.checkpoint import open_checkpoint
from tlog_core.errors import MalformedError
from tlog_core.gossip import Message, parse_message, sign_message
from tlog_core.merkle import EMPTY_ROOT, Hash
from tlog_core.note import COSIGNATURE, SignerKey, parse_verifier, sign_note, signer_from_seed

ONE, TWO = (signer_from_seed(f"{name}.example", bytes([number]) * 32) for number, name in enumerate(("one", "two")))
NAMESAKE = signer_from_seed("one.example", bytes([9]) * 32)
ORIGIN = "example.com/audit/segments/{}"
TEXT = "text/plain"
_COUNT = count(0, 100)


def options(folder: Path, *signers: SignerKey) -> list[str]:
    """Return the options by which a server is given these keys."""
    found: list[str] = []
    for signer in signers:
        path = folder / f"{signer.name}.vkey"
        path.write_text(f"{signer.verifier}\n")
        found += ["--monitor-key", str(path)]
    return found


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A guarded server that was given two keys of monitors."""
    folder = tmp_path_factory.mktemp("bulletins")
    tokens = lay(folder / "data")
    built = House(start(folder / "data", guarded=True, log_name=None, options=options(folder, TWO, ONE)), tokens)
    yield built
    built.server.kill()
    built.check_no_secret()


def later() -> int:
    """Return a time that is later than those before."""
    return now() + next(_COUNT)


def said(segment: str = "payments", time: int | None = None, **more: Any) -> Bulletin:
    return Bulletin(ORIGIN.format(segment), later() if time is None else time, **more)


def post(house: House, raw: bytes, segment: str = "payments", who: str = "examiner") -> Answer:
    return house.ask(who, "POST", f"/segments/{segment}/bulletins", raw, Content_Type=TEXT)


def shown(house: House, segment: str = "payments", who: str = "examiner") -> list[dict[str, object]]:
    answer = house.ask(who, "GET", f"/segments/{segment}/bulletins")
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")
    assert answer.json().keys() == {"bulletins"}
    found: list[dict[str, object]] = answer.json()["bulletins"]
    return found


def refusal(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json()["type"].rpartition(":")[2]


def test_of_each_monitor_the_latest_is_shown_to_who_may_read_the_checkpoint(house: House) -> None:
    begun = now()
    first, other = said(), said(convicted=True, tallies=(Tally("evidence", "fork", 1),))
    second = said(time=first.time + 1, head=Verified(0, EMPTY_ROOT, begun), gossip=Round(begun, 3, 2))
    for bulletin, signer in ((first, ONE), (other, TWO), (second, ONE)):
        answer = post(house, sign_bulletin(bulletin, signer), who="monitor")
        assert (answer.status, answer.body) == (204, b"")
    for who in ("writer", "monitor", "auditor"):
        found = shown(house, who=who)
        # As the operator gave the keys.
        assert [one["vkey"] for one in found] == [str(TWO.verifier), str(ONE.verifier)]
        keys = [parse_verifier(str(one["vkey"])) for one in found]
        opened = [open_bulletin(str(one["note"]).encode(), key) for one, key in zip(found, keys, strict=True)]
        assert opened == [other, second]
        assert all(begun <= int(str(one["received"])) <= now() for one in found)


def test_none_is_logged_nor_on_record(house: House) -> None:
    def heads() -> list[bytes]:
        return [house.ask("examiner", "GET", f"/segments/{name}/checkpoint").body for name in names]

    names = ("payments", "access", "control")
    before = heads()
    assert post(house, sign_bulletin(said(), ONE)).status == 204
    shown(house)
    assert heads() == before


def test_the_first_that_is_wrong_is_what_is_refused(house: House) -> None:
    """Each case is wrong in one thing less than the one before."""
    far, kept = now() + 600_000, said()
    assert post(house, sign_bulletin(kept, ONE)).status == 204
    stranger = signer_from_seed("three.example", bytes(32))

    long = b"tlog/bulletin/v1\n" + bytes(MAX_BULLETIN_BYTES)
    elsewhere = said("secrets", time=far)
    cases: Sequence[tuple[bytes, tuple[int, str]]] = (
        (long, (413, "too-large")),
        (long[:MAX_BULLETIN_BYTES], (400, "malformed")),
        (sign_bulletin(elsewhere, stranger), (403, "unknown-monitor")),
        (sign_bulletin(elsewhere, NAMESAKE), (403, "unknown-monitor")),
        (tampered(sign_bulletin(elsewhere, ONE)), (400, "malformed")),
        (tampered(sign_bulletin(said(time=far), ONE)), (400, "malformed")),
        (tampered(sign_bulletin(said(time=1), ONE)), (403, "wrong-signature")),
        (sign_bulletin(said(time=1), ONE), (409, "conflict")),
        (sign_bulletin(kept, ONE), (409, "conflict")),
    )
    answers = [post(house, raw) for raw, _ in cases]
    assert [refusal(answer) for answer in answers] == [wanted for _, wanted in cases]
    assert "post each to the log that it speaks of" in answers[4].json()["detail"]
    assert "are the clocks right?" in answers[5].json()["detail"]
    assert open_bulletin(str(shown(house)[-1]["note"]).encode(), ONE.verifier) == kept


def tampered(raw: bytes) -> bytes:
    """Return a bulletin with one more finding than was signed."""
    text, _, lines = raw.partition(b"\n\n")
    return text + b"\nfinding complaint old 1\n\n" + lines


def test_of_one_sent_many_times_at_once_one_is_taken(house: House) -> None:
    raw = sign_bulletin(said("secrets"), ONE)
    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(answer.status for answer in pool.map(lambda _: post(house, raw, "secrets"), range(8)))
    assert statuses == [204] + [409] * 7


def test_nothing_that_is_signed_otherwise_is_taken_for_a_bulletin_nor_a_bulletin_for_that(house: House) -> None:
    checkpoint = house.ask("examiner", "GET", "/segments/payments/checkpoint").body
    message = sign_message(Message(TWO.verifier, now(), heads=(checkpoint,)), ONE)
    for raw in (checkpoint, message, bytes(sign_note(str(said()), ONE, TWO))):
        assert refusal(post(house, raw)) == (400, "malformed")
    bulletin = sign_bulletin(said(head=Verified(0, EMPTY_ROOT, 0)), ONE)
    for parse in (parse_message, lambda raw: open_checkpoint(raw, ONE.verifier)):
        with pytest.raises(MalformedError):
            parse(bulletin)


def test_a_segment_of_tlogs_own_takes_bulletins_too(house: House) -> None:
    for name in ("control", "access"):
        assert post(house, sign_bulletin(said(name), ONE), name).status == 204
        assert [one["vkey"] for one in shown(house, name)] == [str(ONE.verifier)]
        assert post(house, sign_bulletin(said(name), ONE), name, "monitor").status == 404


def test_a_segment_that_is_sealed_or_frozen_takes_bulletins(house: House) -> None:
    for name in ("fresh-sealed", "fresh-frozen"):
        assert house.ask("creator", "PUT", f"/segments/{name}", b'{"labels":{"env":"prod"}}').status == 201
    assert house.ask("root", "PUT", "/segments/fresh-sealed/seal").status == 200
    with closing(SegmentStore(database(house, "fresh-frozen"))) as store, store.write() as transaction:
        assert transaction.freeze(Frozen(1, "w", 9, "why"), behind=False)
    assert house.ask("examiner", "GET", "/segments/fresh-frozen").json()["frozen"]["reason"] == "why"
    for name in ("fresh-sealed", "fresh-frozen"):
        assert post(house, sign_bulletin(said(name), ONE), name).status == 204
        assert [one["vkey"] for one in shown(house, name)] == [str(ONE.verifier)]


def database(house: House, name: str) -> Path:
    with closing(connect(house.server.data / "control.db")) as control:
        [(found,)] = control.execute("select id from segment where name = ?", [name]).fetchall()
    return house.server.data / "segments" / f"{found}.db"


def test_what_a_monitor_has_seen_and_the_log_has_not_is_said_once_in_the_servers_log(house: House) -> None:
    assert house.append("writer").status == 201
    answer = house.ask("examiner", "GET", "/segments/payments").json()
    note = house.ask("examiner", "GET", "/segments/payments/checkpoint").body
    head, other, time = open_checkpoint(note, parse_verifier(answer["vkey"])), Hash(bytes(32)), later()
    sizes = ((head.size - 1, other), (head.size, head.root), (head.size, other), (head.size + 1, other))
    for number, (size, root) in enumerate(sizes):
        raw = sign_bulletin(said(time=time + number, head=Verified(size, root, 1)), ONE)
        assert [post(house, raw).status for _ in range(2)] == [204, 409]
    lines = [line for line in house.server.logged() if line["event"] == "bulletin differs"]
    found = [(line["level"], line["segment"], line["monitor"], line["verified"], line["size"]) for line in lines]
    assert found == [("warning", "payments", "one.example", size, head.size) for size in (head.size, head.size + 1)]


def test_one_that_is_damaged_is_found_freezes_nothing_and_the_next_takes_its_place(
    house: House, tmp_path: Path
) -> None:
    data, name = house.server.data, "secrets"
    changes = (
        ("update bulletin set note = cast(replace(cast(note as text), 'tlog', 'Tlog') as blob)", 500),
        ("update bulletin set note = cast(replace(cast(note as text), 'time 1', 'time 2') as blob)", 500),
        ("update bulletin set time = time - 1", 200),
    )
    for number, (change, status) in enumerate(changes):
        assert post(house, sign_bulletin(said(name, later()), ONE), name).status == 204
        assert tlog("fsck", "--data", data, name).stdout == ""
        with closing(connect(database(house, name))) as connection:
            connection.execute(change)
        assert house.ask("examiner", "GET", f"/segments/{name}/bulletins").status == status
        page = house.ask("examiner", "GET", f"/web/segments/{name}")
        assert (page.status, b"cannot be trusted" in page.body) == (200, status == 500)
        found = tlog("fsck", "--data", data, "--json", name)
        assert [json.loads(line).get("kind") for line in found.stdout.splitlines()] == ["bulletin", None]
        tell("backup", "--data", data, tmp_path / f"backup-{number}")
        assert post(house, sign_bulletin(said(name, later()), ONE), name).status == 204
        assert len(shown(house, name)) == 1
    assert (
        serious([Finding("", "", kind, "") for kind in (Kind.BULLETIN, Kind.COSIGNATURE)])[0].kind is Kind.COSIGNATURE
    )


def test_a_backup_has_the_bulletins(house: House, tmp_path: Path) -> None:
    raw = sign_bulletin(said(time=later()), ONE)
    assert post(house, raw).status == 204
    tell("backup", "--data", house.server.data, tmp_path / "backup")
    tell("restore", "--data", tmp_path / "data", tmp_path / "backup")
    stored = tmp_path / "data" / database(house, "payments").relative_to(house.server.data)
    with closing(SegmentStore(stored)) as store:
        assert raw in [row.note for row in store.bulletins()]


def test_a_folder_of_before_there_were_bulletins_is_taken_on_and_what_a_key_said_goes_with_it(
    start_server: Callable[..., Server], tmp_path: Path
) -> None:
    data, path, time = tmp_path / "data", "/segments/payments/bulletins", now()
    tell("segment", "create", "payments", "--data", data, "--log-name", LOG_NAME)
    for stored in data.glob("segments/*.db"):
        before = stored.rename(stored.with_suffix(".before"))
        make_earlier("segment", before, stored, 6)
        before.unlink()
    both = options(tmp_path, ONE, TWO)
    for turn, (given, taken) in enumerate([(both, [ONE, TWO]), (both[2:], [TWO])]):
        server = start_server(data, workers=1, options=given)
        for signer in (ONE, TWO):
            raw = sign_bulletin(said(time=time + turn), signer)
            answer = server.request("POST", path, raw, {"Content-Type": TEXT})
            assert answer.status == (204 if signer in taken else 403)
        found = [one["vkey"] for one in server.request("GET", path).json()["bulletins"]]
        assert found == [str(signer.verifier) for signer in taken]
        assert server.stop() == 0
    assert tlog("fsck", "--data", data).exit_code == 0


def test_a_stored_bulletin_never_goes_back_but_from_a_time_that_no_clock_has_reached(store: SegmentStore) -> None:
    def put(time: int, *, latest: int) -> bool:
        with store.write() as transaction:
            return transaction.put_bulletin(BulletinRow("v", time, latest, b"%d" % time), latest=latest)

    times = [(5, 9, True), (5, 9, False), (4, 9, False), (6, 9, True), (5, 6, False), (5, 5, True), (4, 5, False)]
    assert [put(time, latest=latest) for time, latest, _ in times] == [taken for _, _, taken in times]
    assert [(row.time, row.note) for row in store.bulletins()] == [(5, b"5")]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        ("\xff", "cannot be read"),
        ("one.example", "is to hold the verifier key of a monitor"),
        (str(signer_from_seed("w.example", bytes(32), key_type=COSIGNATURE).verifier), "has the key of a witness"),
        (str(NAMESAKE.verifier), "two monitor keys have the name one.example"),
    ],
)
def test_a_server_does_not_start_with_a_key_that_is_none_of_a_monitor(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    given = options(tmp_path, ONE)
    if content is not None:
        (tmp_path / "other.vkey").write_bytes(content.encode("latin-1"))
    given += ["--monitor-key", str(tmp_path / "other.vkey")]
    done = tlog("serve", "--unguarded", "--data", tmp_path / "data", "--port", free_port(), *given)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("tlog: ")
    assert reason in done.stderr
    assert not Config(tmp_path / "data").control.exists()
