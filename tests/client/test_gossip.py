"""Gossip by the real engine: what is told and heard, in which order things are refused, and what it costs a peer."""

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from gossiping import NOW, History, Net, log_key, monitor_keys
from hypothesis import given
from hypothesis import strategies as st

import tlog_client.monitor.gossip as engine
from tlog_client.monitor.budget import Count, Faults
from tlog_client.monitor.exchange import answer_exchange
from tlog_client.monitor.gossip import BusyError, Gossip, Outcome, StrangerError, Timetable, TooLargeError
from tlog_core.bulletin import Round
from tlog_core.errors import MalformedError, SignatureError, TlogError
from tlog_core.evidence import find_contradiction, format_evidence
from tlog_core.gossip import Message, parse_message, sign_message
from tlog_core.note import KeyId, Note, Signature, open_parsed, parse_note, sign_note

LOG = log_key()
ONE = History(LOG, "one", 20)
OTHER = History(LOG, "other", 20)


def two(one: tuple[History, int], other: tuple[History, int]) -> Net:
    net = Net(2, LOG)
    net.watchers[0].follow(*one)
    net.watchers[1].follow(*other)
    return net


def bad_heads(count: int, *, first: int = 0) -> tuple[bytes, ...]:
    """Return heads of the log that it did not sign."""
    note = ONE.head(3).decode()
    return tuple(note.replace("\n3\n", f"\n{3 + first + at}\n", 1).encode() for at in range(1, count + 1))


def forks(count: int) -> list[bytes]:
    """Return files of evidence, each another."""
    found = []
    for at in range(count):
        lie = History(LOG, f"lie {at}", 3)
        evidence = find_contradiction(parse_note(ONE.head(3)), parse_note(lie.head(3)), node=ONE.node)
        assert evidence is not None
        found.append(format_evidence(evidence))
    return found


def asked(net: Net, *heads: bytes, evidence: tuple[bytes, ...] = (), sender: int = 1) -> bytes:
    """Return a request of one monitor to the first, at the present moment."""
    return sign_message(Message(net.keys[0].verifier, net.clock(), evidence, heads), net.keys[sender])


# What is told


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [((ONE, 7), (OTHER, 7)), ((ONE, 7), (OTHER, 9)), ((ONE, 9), (OTHER, 7)), ((ONE, 8), (OTHER, 20))],
)
def test_two_histories_that_meet_are_evidence_at_both(mine: tuple[History, int], theirs: tuple[History, int]) -> None:
    net = two(mine, theirs)
    [report] = net.gossips[0].round()
    assert report.outcome is Outcome.HEARD
    # Who holds the larger tree knows at once; who has only the answer of the other, with the next exchange.
    assert any(watcher.evidence() for watcher in net.watchers)
    net.gossips[0].round()
    assert all(watcher.evidence() for watcher in net.watchers)


def test_one_history_at_two_sizes_is_nothing() -> None:
    net = two((ONE, 7), (ONE, 20))
    assert net.gossips[0].last is None
    for gossip in net.gossips:
        [report] = gossip.round()
        assert (report.outcome, report.evidence, report.faults) == (Outcome.HEARD, 0, 0)
        assert gossip.last == Round(net.clock(), 1, 1)
    assert not any(watcher.evidence() for watcher in net.watchers)
    net.unreachable.add(net.keys[1].name)
    net.clock.now += 1
    net.gossips[0].round()
    assert net.gossips[0].last == Round(net.clock(), 1, 0)


def test_a_head_that_nobody_could_connect_yet_is_told_on_and_decided_later() -> None:
    net = Net(3, LOG)
    net.watchers[0].follow(OTHER, 15)
    net.watchers[1].follow(ONE, 5)
    net.watchers[2].follow(ONE, 6)
    net.gossips[0].exchange(net.peers[1])
    net.gossips[1].exchange(net.peers[2])
    net.watchers[2].follow(ONE, 20)
    assert len(net.watchers[2].evidence()) == 1


def test_evidence_is_told_first_and_an_answer_has_what_the_request_brought_to_light() -> None:
    net = two((ONE, 7), (OTHER, 7))
    request = net.gossips[0].ask(net.peers[1])
    answer = parse_message(net.gossips[1].answer(request)).message
    assert answer.evidence == tuple(net.watchers[1].evidence())
    assert answer.request == hashlib.sha256(request).digest()
    assert answer.to == net.keys[0].verifier


def test_an_answer_leaves_out_what_the_request_had() -> None:
    net = two((ONE, 7), (ONE, 7))
    answer = parse_message(net.gossips[1].answer(net.gossips[0].ask(net.peers[1]))).message
    assert (answer.evidence, answer.heads) == ((), ())


def test_all_heads_are_told_in_turn_to_each_peer() -> None:
    logs = [log_key(f"example.com/segments/s{at}") for at in range(200)]
    net = Net(3, *logs)
    for log in logs:
        net.watchers[0].follow(History(log, "", 1), 1)
    for peer in net.peers[1:]:
        messages = [parse_message(net.gossips[0].ask(peer)).message for _ in range(4)]
        assert [len(message.heads) for message in messages] == [64] * 4
        told = [raw for message in messages for raw in message.heads]
        assert set(told) == set(net.watchers[0].judge.heads(1000))
        assert told[:200] == net.watchers[0].judge.heads(1000)
        assert told[200:] == told[:56]


def test_all_evidence_is_told_in_turn_and_leaves_room_for_heads() -> None:
    net = two((ONE, 7), (ONE, 7))
    files = [bytes([at]) * 16_000 for at in range(7)]
    for file in files:
        net.watchers[0].judge.memory.put_evidence(file[:4].hex(), "", file, NOW)
    messages = [parse_message(net.gossips[0].ask(net.peers[1])).message for _ in range(4)]
    assert all(len(message.evidence) == 2 and len(message.heads) == 1 for message in messages)
    assert {raw for message in messages for raw in message.evidence} == set(files)
    assert messages[0].evidence == (files[6], files[5])


def test_an_item_too_large_for_any_message_is_passed_over() -> None:
    net = Net(2, LOG)
    large = Note(parse_note(ONE.head(3)).text, (Signature(LOG.name, KeyId(b"1234"), bytes(8_193)),))
    net.watchers[0].pretend(LOG.name, bytes(large), b"small")
    assert parse_message(net.gossips[0].ask(net.peers[1])).message.heads == (b"small",)


def test_what_was_not_verified_is_not_told_on() -> None:
    net = two((ONE, 7), (ONE, 7))
    stranger = str(sign_note("x\n", net.keys[1]).signatures[0])
    net.gossips[0].answer(asked(net, *bad_heads(2), b"garbage", ONE.head(9) + stranger.encode()))
    assert set(parse_message(net.gossips[0].ask(net.peers[1])).message.heads) == {ONE.head(7), ONE.head(9)}


# Whom


def test_peers_are_drawn_evenly_from_all_that_can_be_called() -> None:
    net = Net(11, LOG)
    peers = [*net.peers[:-1], replace(net.peers[-1], url="")]
    judge = net.watchers[0].judge
    seeded = random.Random(1)  # noqa: S311 - to be repeated
    gossip = Gossip(net.keys[0], peers, judge, clock=net.clock, random=seeded, send=net.send)
    net.unreachable = {"monitor-3"}
    drawn = Counter[str]()
    for _ in range(3000):
        names = [report.peer.key.name for report in gossip.round()]
        net.clock.now += 60_000
        assert len(set(names)) == 3
        drawn.update(names)
    assert set(drawn) == {f"monitor-{at}" for at in range(1, 10)}
    # Each in a third of the rounds; five standard deviations.
    assert all(abs(count - 1000) < 5 * (3000 * 2 / 9) ** 0.5 for count in drawn.values())


def test_with_few_peers_all_are_asked() -> None:
    assert len(Net(3, LOG).gossips[0].draw()) == 2
    assert Net(1, LOG).gossips[0].round() == ()


def test_one_who_does_not_answer_keeps_nobody_from_the_others() -> None:
    net = Net(4, LOG)
    net.unreachable = {"monitor-1", "monitor-2"}
    outcomes = {report.peer.key.name: report.outcome for report in net.gossips[0].round()}
    assert outcomes["monitor-3"] is Outcome.HEARD
    assert outcomes["monitor-1"] is outcomes["monitor-2"] is Outcome.UNREACHABLE


# What is refused, in which order


def refused(net: Net, raw: bytes) -> type[TlogError] | None:
    try:
        net.gossips[0].answer(raw)
    except TlogError as error:
        return type(error)
    return None


def test_each_step_is_decided_before_the_next() -> None:
    net = Net(2, LOG)
    me, sender = net.keys[0].verifier, net.keys[1]
    stranger = monitor_keys(3)[2]

    def forge(raw: bytes) -> bytes:
        note = parse_note(raw)
        return bytes(replace(note, signatures=(replace(note.signatures[0], blob=bytes(64)),)))

    good = Message(me, NOW, (), bad_heads(16))
    late = replace(good, time=NOW - 300_001)
    # Each request is wrong in one way more than the one before, and refused for the new one.
    requests: list[tuple[type[TlogError], bytes]] = [
        (SignatureError, forge(sign_message(good, sender))),
        (StrangerError, forge(sign_message(late, sender))),
        (StrangerError, forge(sign_message(replace(late, to=stranger.verifier), sender))),
        (StrangerError, forge(sign_message(replace(late, to=stranger.verifier), stranger))),
        (MalformedError, forge(sign_message(replace(late, request=bytes(32)), stranger))),
        (TooLargeError, forge(sign_message(replace(late, request=bytes(32)), stranger)) + bytes(65_536)),
    ]
    assert [refused(net, raw) for _, raw in requests] == [error for error, _ in requests]
    assert refused(net, sign_message(good, sender)) is None
    # In back-off: not even the signature is looked at, but the time is.
    assert refused(net, forge(sign_message(replace(good, time=NOW + 1), sender))) is BusyError
    assert refused(net, sign_message(good, sender)) is StrangerError


@pytest.mark.parametrize("skew", [-300_000, 300_000])
def test_a_request_may_be_five_minutes_old_or_ahead_and_no_more(skew: int) -> None:
    net = Net(2, LOG)
    worse = skew + (1 if skew > 0 else -1)
    assert refused(net, sign_message(Message(net.keys[0].verifier, NOW + worse), net.keys[1])) is StrangerError
    assert refused(net, sign_message(Message(net.keys[0].verifier, NOW + skew), net.keys[1])) is None


def test_a_request_to_another_key_of_our_name_is_not_for_us() -> None:
    net = Net(2, LOG)
    twin = replace(net.keys[1].verifier, name=net.keys[0].name)
    assert refused(net, sign_message(Message(twin, NOW), net.keys[1])) is StrangerError


def test_our_own_key_is_no_peer() -> None:
    net = Net(2, LOG)
    assert refused(net, sign_message(Message(net.keys[0].verifier, NOW), net.keys[0])) is StrangerError


def test_a_request_is_heard_once_and_none_from_before_it() -> None:
    net = Net(2, LOG)
    older, request = asked(net), replace(parse_message(asked(net)).message, time=NOW + 5)
    raw = sign_message(request, net.keys[1])
    assert refused(net, raw) is None
    assert refused(net, raw) is StrangerError
    assert refused(net, older) is StrangerError
    assert refused(net, sign_message(replace(request, heads=(b"x",)), net.keys[1])) is StrangerError
    assert refused(net, sign_message(replace(request, time=NOW + 6), net.keys[1])) is None


def test_of_two_equal_requests_at_one_moment_one_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    net, barrier, verify = Net(2, LOG), Barrier(2), open_parsed

    def together(*arguments: object) -> object:
        barrier.wait(10)
        return verify(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "open_parsed", together)
    raw = asked(net)
    with ThreadPoolExecutor(2) as pool:
        assert set(pool.map(lambda _: refused(net, raw), range(2))) == {None, StrangerError}


def test_who_asks_has_strictly_later_times_at_one_moment() -> None:
    net = Net(3, LOG)
    times = [parse_message(net.gossips[0].ask(net.peers[1])).message.time for _ in range(3)]
    assert times == [NOW, NOW + 1, NOW + 2]
    assert parse_message(net.gossips[0].ask(net.peers[2])).message.time == NOW


def test_clocks_that_were_far_ahead_and_set_back_do_not_part_us() -> None:
    net = Net(2, LOG)
    net.clock.now += 86_400_000
    assert net.gossips[1].round()[0].outcome is Outcome.HEARD
    net.clock.now -= 86_400_000
    assert net.gossips[1].round()[0].outcome is Outcome.HEARD


Twist = Callable[[bytes, Net], bytes]


def resigned(raw: bytes, net: Net, signer: int = 1, **changes: object) -> bytes:
    return sign_message(replace(parse_message(raw).message, **changes), net.keys[signer])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "twist",
    [
        lambda raw, net: resigned(raw, net, signer=2),
        lambda raw, net: resigned(raw, net, request=bytes(32)),
        lambda raw, net: resigned(raw, net, request=None),
        lambda raw, net: resigned(raw, net, to=net.keys[2].verifier),
        lambda raw, net: resigned(raw, net, time=NOW - 300_001),
        lambda raw, net: resigned(raw, net, time=NOW + 300_001),
        lambda raw, _: raw[:-1],
        lambda raw, _: raw + bytes(65_537),
        lambda _, __: b"",
    ],
    ids=["signer", "request", "no-request", "receiver", "late", "ahead", "cut", "long", "empty"],
)
def test_an_answer_that_is_not_one_to_us_now_is_not_heard(twist: Twist) -> None:
    net = Net(3, LOG)
    net.watchers[0].follow(ONE, 9)
    net.watchers[1].follow(OTHER, 9)
    net.twist = lambda raw: twist(raw, net)
    assert net.gossips[0].exchange(net.peers[1]).outcome is Outcome.WRONG
    assert not net.watchers[0].evidence()
    net.clock.now += 1
    net.twist = lambda raw: raw
    assert net.gossips[0].exchange(net.peers[1]).outcome is Outcome.HEARD
    assert net.watchers[0].evidence()


# Budgets


def test_a_peer_has_eight_requests_and_one_more_in_twenty_seconds() -> None:
    net = Net(3, LOG)
    for _ in range(8):
        assert refused(net, asked(net)) is None
        net.clock.now += 1
    with pytest.raises(BusyError) as caught:
        net.gossips[0].answer(asked(net))
    assert caught.value.wait == 20
    # Not for others.
    assert refused(net, asked(net, sender=2)) is None
    net.clock.now += 20_000 - 9
    assert refused(net, asked(net)) is BusyError
    net.clock.now += 1
    assert refused(net, asked(net)) is None
    net.clock.now += 1
    assert refused(net, asked(net)) is BusyError


def test_nobody_can_use_up_the_budget_of_another_or_lock_it_out() -> None:
    net = Net(2, LOG)
    raw = sign_message(Message(net.keys[0].verifier, NOW + 200_000, heads=bad_heads(20)), net.keys[1])
    note = parse_note(raw)
    forged = bytes(replace(note, signatures=(replace(note.signatures[0], blob=bytes(64)),)))
    assert {refused(net, forged) for _ in range(100)} == {SignatureError}
    assert refused(net, asked(net)) is None


def test_one_bad_item_does_not_stop_the_next() -> None:
    net = two((ONE, 9), (ONE, 9))
    garbage = (b"garbage", *forks(1)[0:0])
    net.gossips[0].answer(asked(net, b"x", *bad_heads(3), OTHER.head(9), evidence=garbage))
    assert len(net.watchers[0].evidence()) == 1


def test_the_sixteenth_fault_ends_the_message_and_begins_a_back_off_that_grows() -> None:
    net = two((ONE, 9), (ONE, 9))
    net.gossips[0].answer(asked(net, *bad_heads(16), OTHER.head(9)))
    assert not net.watchers[0].evidence()
    for seconds in [60, 120, 240, 480, 960, 1920, 3600, 3600]:
        net.clock.now += 1
        with pytest.raises(BusyError) as caught:
            net.gossips[0].answer(asked(net))
        assert caught.value.wait == seconds
        net.clock.now += seconds * 1000 - 1
        # One fault is there at the end of a back-off: the second of two is not heard.
        net.gossips[0].answer(asked(net, *bad_heads(1, first=seconds + net.clock.now), OTHER.head(9)))
    assert not net.watchers[0].evidence()
    # After sixteen minutes without a fault all is as in the beginning.
    net.clock.now += 3_600_000 + 16 * 60_000
    net.gossips[0].answer(asked(net, *bad_heads(15, first=100), OTHER.head(9)))
    assert len(net.watchers[0].evidence()) == 1
    net.clock.now += 1
    net.gossips[0].answer(asked(net, *bad_heads(1, first=200)))
    net.clock.now += 1
    with pytest.raises(BusyError) as caught:
        net.gossips[0].answer(asked(net))
    assert caught.value.wait == 60


def test_an_answer_of_a_peer_in_back_off_is_not_heard_and_others_are() -> None:
    net = Net(3, LOG)
    net.watchers[0].follow(ONE, 9)
    for watcher in net.watchers[1:]:
        watcher.follow(OTHER, 9)
    net.gossips[0].answer(asked(net, *bad_heads(16)))
    assert net.gossips[0].exchange(net.peers[1]).outcome is Outcome.IGNORED
    assert not net.watchers[0].evidence()
    assert net.gossips[0].exchange(net.peers[2]).evidence > 0


def test_faults_in_answers_count_as_well() -> None:
    net = Net(2, LOG)
    net.watchers[0].follow(ONE, 3)
    net.watchers[1].pretend(LOG.name, *bad_heads(20))
    assert net.gossips[0].exchange(net.peers[1]).faults == 16
    assert refused(net, asked(net)) is BusyError


def test_the_same_bytes_are_a_fault_once() -> None:
    net = Net(2, LOG)
    for _ in range(8):
        assert refused(net, asked(net, *bad_heads(10), evidence=(b"unproven",))) is None
        net.clock.now += 1
    assert refused(net, asked(net)) is BusyError
    net.clock.now += 20_000
    assert refused(net, asked(net)) is None


def test_logs_that_we_do_not_follow_are_no_fault() -> None:
    other = log_key("example.com/segments/other")
    # The same origin too, by a key that only the peer knows.
    renewed = replace(other, verifier=replace(other.verifier, name=LOG.name))
    foreign = [History(other, name, 9) for name in "ab"]
    newer = [History(renewed, name, 9) for name in "ab"]
    evidence = []
    for (one, two_), size in itertools.product((foreign, newer), range(1, 9)):
        found = find_contradiction(parse_note(one.head(size)), parse_note(two_.head(size)), node=one.node)
        assert found is not None
        evidence.append(format_evidence(found))
    net = Net(2, LOG)
    heads = [history.head(size) for history in (*foreign, *newer) for size in range(1, 9)]
    for _ in range(3):
        assert refused(net, asked(net, *heads, evidence=tuple(evidence))) is None
        net.clock.now += 1
    assert net.gossips[0].exchange(net.peers[1]).outcome is Outcome.HEARD
    assert not net.watchers[0].unresolved(LOG.name)
    assert not net.watchers[0].evidence()


def test_one_head_too_many_for_the_judge_is_no_fault() -> None:
    net = Net(2, LOG)
    net.watchers[0].follow(ONE, 1)
    grown = History(LOG, "one", 64)
    for sizes in (range(2, 34), range(34, 64)):
        net.gossips[0].answer(asked(net, *map(grown.head, sizes)))
        net.clock.now += 1
    assert len(net.watchers[0].unresolved(LOG.name)) == 32
    assert refused(net, asked(net)) is None


def test_what_is_kept_of_a_peer_stays_the_same_whatever_it_sends() -> None:
    net = Net(2, LOG)
    for at in range(200):
        net.clock.now += 3_600_000
        refused(net, asked(net, *bad_heads(16, first=100 * at)))
    [contact] = net.gossips[0]._contacts.values()
    assert len(contact.faults.digests) == 64
    assert not net.watchers[0].unresolved(LOG.name)


@given(st.lists(st.tuples(st.integers(0, 25), st.booleans()), max_size=60))
def test_a_count_gives_what_a_plain_one_gives(steps: list[tuple[int, bool]]) -> None:
    count, now, taken = Count(3, 10), 0, list[int]()
    for more, wanted in steps:
        now += more
        # Each one taken comes back 10 after the one before it did, or after it was taken.
        back = 0
        for moment in taken:
            back = max(back, moment) + 10
        there = 3 - max(0, -(-(back - now) // 10))
        assert (count.wait(now) == 0) is (there > 0)
        if wanted and there > 0:
            count.take(now)
            taken.append(now)


def test_a_count_comes_back_though_the_clock_is_set_back() -> None:
    count = Count(3, 10)
    for _ in range(3):
        count.take(1_000_000)
    assert count.wait(1_000_000) == 10
    assert count.wait(0) == 0


def test_a_back_off_ends_though_the_clock_is_set_back() -> None:
    faults = Faults()
    for at in range(16):
        faults.charge(bytes([at]), NOW)
    assert faults.wait(NOW) == 60_000
    assert faults.wait(NOW - 86_400_000) == 0


# When


def test_rounds_are_a_minute_apart_more_or_less_and_news_is_told_at_once_but_not_twice_in_one() -> None:
    seeded = random.Random(3)  # noqa: S311 - to be repeated
    timetable = Timetable(NOW, seeded)
    first = timetable.wait(NOW, news=False)
    assert 0 <= first < 60_000
    now, waits = NOW + first, []
    for _ in range(500):
        timetable.done(now)
        waits.append(timetable.wait(now, news=False))
        now += waits[-1]
    assert 48_000 <= min(waits) < 49_000
    assert 71_000 < max(waits) <= 72_000
    timetable.done(now)
    now += 10
    assert timetable.wait(now, news=True) == 0
    timetable.done(now)
    # The regular one is not put off, and a second extra round waits its time.
    assert 48_000 - 10 <= timetable.wait(now, news=False) <= 72_000
    assert timetable.wait(now, news=True) == min(60_000, timetable.wait(now, news=False))


def test_new_evidence_from_whomever_is_news_and_the_same_again_is_not() -> None:
    net = two((ONE, 9), (ONE, 9))
    file = forks(1)[0]
    net.gossips[0].answer(asked(net, evidence=(file,)))
    assert net.gossips[0].news.is_set()
    net.gossips[0].round()
    assert not net.gossips[0].news.is_set()
    net.clock.now += 5
    net.gossips[0].answer(asked(net, evidence=(file,)))
    assert not net.gossips[0].news.is_set()


def test_evidence_that_is_there_is_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    net = two((ONE, 9), (ONE, 9))
    file = forks(1)[0]
    net.gossips[0].answer(asked(net, evidence=(file,)))
    monkeypatch.setattr("tlog_client.monitor.judge.describe_evidence", None)
    net.clock.now += 1
    net.gossips[0].answer(asked(net, evidence=(file,)))
    assert net.watchers[0].evidence() == [file]


def test_the_head_that_convicted_is_news_once() -> None:
    net = Net(2, LOG)
    net.watchers[0].follow(ONE, 9)
    for expected in (True, False):
        net.gossips[0].draw()
        net.gossips[0].answer(asked(net, OTHER.head(9)))
        assert net.gossips[0].news.is_set() is expected
        net.clock.now += 1


# Over HTTP the errors have the statuses of the specification


def test_each_error_has_its_status_and_says_why_in_one_line() -> None:
    net = Net(2, LOG)
    forged = parse_note(asked(net))
    forged = replace(forged, signatures=(replace(forged.signatures[0], blob=bytes(64)),))
    statuses = [answer_exchange(net.gossips[0], raw) for raw in (bytes(65_537), b"", bytes(forged), asked(net))]
    assert [answer.status for answer in statuses] == [413, 400, 403, 200]
    assert all(answer.body.count(b"\n") == 1 and answer.body.endswith(b"\n") for answer in statuses[:3])
    assert answer_exchange(net.gossips[0], asked(net)).status == 403
    for _ in range(7):
        net.clock.now += 1
        assert answer_exchange(net.gossips[0], asked(net)).status == 200
    net.clock.now += 1
    busy = answer_exchange(net.gossips[0], asked(net))
    assert (busy.status, busy.headers["Retry-After"]) == (429, "20")
    assert busy.kind == "text/plain; charset=utf-8"
