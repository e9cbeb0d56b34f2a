"""Every event given to a `Writer` gets an answer, and one event never harms another."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from pathlib import Path
from typing import Any

import pytest
from live import PATIENCE, until
from simulator import Answer, Simulator, drop_after, refuse, unavailable

from tlog_client import (
    InconsistencyError,
    Log,
    MalformedError,
    ProofError,
    Receipt,
    RefusedError,
    TlogError,
    TransientError,
    Writer,
    verify_receipt,
)

FOREVER = 3600.0
"""A linger that no test lives to see the end of."""


class Gate:
    """A fault that holds a request until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, work: Callable[[], Answer]) -> Answer:
        self.reached.set()
        assert self._open.wait(2 * PATIENCE)
        return work()

    def open(self) -> None:
        self._open.set()


def bodies(sim: Simulator) -> list[list[Any]]:
    """The events of each request."""
    return [[json.loads(line) for line in request.body.splitlines()] for request in sim.requests]


def test_each_event_gets_its_own_verified_receipt(log: Log, sim: Simulator) -> None:
    with Writer(log, batch=10) as writer:
        futures = [writer.submit({"n": number}) for number in range(35)]
    for number, future in enumerate(futures):
        assert future.result().index == number
        verify_receipt(future.result(), key=sim.key, payload=b'{"n":%d}' % number)


def test_a_full_batch_is_sent_without_lingering(log: Log, sim: Simulator) -> None:
    with Writer(log, batch=3, linger=FOREVER) as writer:
        futures = [writer.submit(number) for number in range(3)]
        wait(futures)
        assert bodies(sim) == [[0, 1, 2]]


def test_a_lonely_event_is_sent_after_a_while(log: Log) -> None:
    with Writer(log, linger=0.01) as writer:
        assert writer.submit(1).result().index == 0


def test_no_batch_is_larger_than_it_may_be(log: Log, sim: Simulator) -> None:
    gate = Gate()
    sim.faults.append(gate)
    with Writer(log, batch=4, linger=FOREVER) as writer:
        for number in range(11):
            writer.submit(number)
        gate.open()
    assert bodies(sim) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


def test_a_batch_stays_below_the_bytes_that_the_log_takes(log: Log, sim: Simulator) -> None:
    with Writer(log, batch=10_000, linger=FOREVER) as writer:
        futures = [writer.submit("x" * 1_000_000) for _ in range(20)]
    assert [future.result().index for future in futures] == list(range(20))
    assert all(len(request.body) <= 16 << 20 for request in sim.requests)
    assert len(sim.requests) == 2


@pytest.mark.parametrize(("batch", "queue"), [(0, 1), (10_001, 1), (1, 0)])
def test_a_writer_that_could_not_work_is_not_made(log: Log, batch: int, queue: int) -> None:
    with pytest.raises(ValueError, match="10000"):
        Writer(log, batch=batch, queue=queue)


def test_a_bad_event_is_refused_at_once_and_harms_no_other(log: Log) -> None:
    with Writer(log, linger=FOREVER) as writer:
        before = writer.submit(1)
        with pytest.raises(MalformedError):
            writer.submit(float("nan"))
        after = writer.submit(2)
    assert [before.result().index, after.result().index] == [0, 1]


def test_an_event_that_the_log_refuses_harms_no_other(log: Log, sim: Simulator) -> None:
    sim.faults.append(refuse(400, detail="line 2: I do not like it", line=2))
    with Writer(log, linger=FOREVER) as writer:
        futures = [writer.submit(number) for number in range(3)]
    with pytest.raises(RefusedError, match="line 2"):
        futures[1].result()
    assert [futures[0].result().index, futures[2].result().index] == [0, 1]
    assert bodies(sim) == [[0, 1, 2], [0, 2]]
    assert len({request.headers["idempotency-key"] for request in sim.requests}) == 2


@pytest.mark.parametrize("more", [{}, {"line": 4}, {"line": 0}])
def test_a_batch_refused_for_no_event_in_it_fails_whole(log: Log, sim: Simulator, more: dict[str, Any]) -> None:
    sim.faults.append(refuse(403, detail="not you", **more))
    with Writer(log, linger=FOREVER) as writer:
        futures = [writer.submit(number) for number in range(3)]
    assert all(isinstance(future.exception(), RefusedError) for future in futures)
    assert len(sim.requests) == 1


def test_the_last_event_of_a_batch_can_be_the_one_refused(log: Log, sim: Simulator) -> None:
    sim.faults.append(refuse(400, line=1))
    with Writer(log, linger=FOREVER) as writer:
        future = writer.submit(1)
    assert isinstance(future.exception(), RefusedError)
    assert len(sim.requests) == 1


def hold(future: Future[Receipt], gate: threading.Event) -> threading.Event:
    """Hold up whoever gives the future its receipt until the gate is opened; return what is set when that begins."""
    reached = threading.Event()

    def wait_there(_: Future[Receipt]) -> None:
        reached.set()
        assert gate.wait(2 * PATIENCE)

    future.add_done_callback(wait_there)
    return reached


def test_one_batch_is_sent_while_the_receipts_of_the_last_are_handed_out(log: Log, sim: Simulator) -> None:
    gate = threading.Event()
    with Writer(log, batch=1) as writer:
        first = writer.submit(0)
        reached = hold(first, gate)
        others = [writer.submit(number) for number in (1, 2)]
        assert reached.wait(PATIENCE)
        until(lambda: len(sim.requests) == 2, "the next batch")
        # Its receipt comes after those before it, and no other batch is sent meanwhile.
        assert not wait(others, timeout=0.1).done
        assert len(sim.requests) == 2
        gate.set()
    assert [future.result().index for future in others] == [1, 2]


def test_no_batch_is_sent_before_the_last_is_logged(log: Log, sim: Simulator) -> None:
    gate = Gate()
    sim.faults.append(gate)
    with Writer(log, batch=1) as writer:
        futures = [writer.submit(number) for number in range(3)]
        assert gate.reached.wait(PATIENCE)
        assert not wait(futures, timeout=0.1).done
        assert len(sim.requests) == 1
        gate.open()
    assert bodies(sim) == [[0], [1], [2]]


def test_a_flush_waits_for_receipts_that_are_being_handed_out_too(log: Log) -> None:
    gate = threading.Event()
    with Writer(log, batch=2) as writer:
        first, last = writer.submit(0), writer.submit(1)
        assert hold(first, gate).wait(PATIENCE)
        flushing = threading.Thread(target=writer.flush)
        flushing.start()
        flushing.join(0.1)
        assert flushing.is_alive()
        gate.set()
        flushing.join(PATIENCE)
        assert last.done()


def test_a_batch_cannot_be_answered_with_the_receipts_of_the_one_sent_before(log: Log, sim: Simulator) -> None:
    sim.grow(5)
    log.checkpoint()
    sim.grow(1)
    gate, kept = Gate(), list[Answer]()

    def keep(answer: Answer) -> Answer:
        kept.append(answer)
        return kept[0]

    sim.lies["entries"] = keep
    # Of the first batch it has to be proven that the log grew to it; the second is sent meanwhile.
    sim.lies["proof"] = lambda answer: gate(lambda: answer)
    with Writer(log, batch=1) as writer:
        first, second = writer.submit({"n": 1}), writer.submit({"n": 1})
        until(lambda: len(kept) == 2, "the next batch")
        gate.open()
    assert first.result().index == 6
    with pytest.raises(ProofError, match="before"):
        second.result()


def test_a_callback_that_closes_the_writer_is_told_so_and_hangs_nothing(
    log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer(log, batch=1)
    gate = threading.Event()
    first = writer.submit(1)
    reached = hold(first, gate)
    first.add_done_callback(lambda _: writer.close())
    second = writer.submit(2)
    assert reached.wait(PATIENCE)
    gate.set()
    assert second.result(PATIENCE).index == 1
    writer.close()
    assert "callback of a future" in caplog.text


def test_a_future_is_one_that_all_of_the_standard_library_knows(log: Log, sim: Simulator) -> None:
    gate = Gate()
    sim.faults.append(gate)
    with Writer(log, batch=3) as writer:
        futures = [writer.submit(number) for number in range(3)]
        assert gate.reached.wait(PATIENCE)
        with pytest.raises(TimeoutError):
            futures[0].result(timeout=0.01)
        assert not wait(futures, timeout=0.01).done
        # Several threads wait for each, in each of the ways there are, before there is anything.
        with ThreadPoolExecutor(8) as pool:
            ways = [pool.submit(future.result, PATIENCE) for future in futures for _ in range(2)]
            ways += [pool.submit(lambda: {one.result() for one in as_completed(futures, PATIENCE)}.pop())]
            ways += [pool.submit(asyncio.run, awaited(futures[2]))]
            until(lambda: all(way.running() for way in ways), "all wait")
            gate.open()
            assert [way.result(PATIENCE).index for way in ways[:6]] == [0, 0, 1, 1, 2, 2]
            assert ways[7].result(PATIENCE).index == 2
        assert not futures[0].cancel()


async def awaited(future: Future[Receipt]) -> Receipt:
    return await asyncio.wrap_future(future)


def test_a_retried_batch_is_logged_once(log: Log, sim: Simulator) -> None:
    sim.faults += [drop_after, drop_after]
    with Writer(log) as writer:
        futures = [writer.submit(number) for number in range(3)]
    assert [future.result().index for future in futures] == [0, 1, 2]
    assert sim.size == 3


def test_after_a_batch_has_failed_the_next_goes_on(log: Log, sim: Simulator) -> None:
    sim.faults += [unavailable()] * 3
    with Writer(log, batch=2, linger=FOREVER) as writer:
        failed = [writer.submit(1), writer.submit(2)]
        wait(failed)
        logged = [writer.submit(3), writer.submit(4)]
    assert all(isinstance(future.exception(), TransientError) for future in failed)
    assert [future.result().index for future in logged] == [0, 1]


def test_a_log_that_lies_is_the_answer_to_every_event(log: Log, sim: Simulator) -> None:
    sim.grow(5)
    log.checkpoint()
    sim.fork(2)
    with Writer(log) as writer:
        futures = [writer.submit(number) for number in range(3)]
    assert all(isinstance(future.exception(), InconsistencyError) for future in futures)


def test_even_a_fault_of_the_program_is_an_answer(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> list[Receipt]:
        raise ZeroDivisionError

    with Writer(log, linger=FOREVER) as writer:
        monkeypatch.setattr(log, "send_canonical", fail)
        future = writer.submit(1)
    assert isinstance(future.exception(), ZeroDivisionError)


def test_a_full_queue_holds_the_program_up_and_not_for_ever(log: Log, sim: Simulator) -> None:
    gate = Gate()
    sim.faults.append(gate)
    with Writer(log, batch=1, queue=2) as writer:
        futures = [writer.submit(0)]
        assert gate.reached.wait(PATIENCE)
        futures += [writer.submit(1), writer.submit(2)]
        with pytest.raises(TimeoutError, match="queue of 2"):
            writer.submit(3, timeout=0.01)
        gate.open()
        futures.append(writer.submit(4))
    assert [future.result().index for future in futures] == [0, 1, 2, 3]


def test_few_events_can_fill_the_queue_with_their_bytes(log: Log, sim: Simulator) -> None:
    gate = Gate()
    sim.faults.append(gate)
    event = "x" * 1_000_000
    with Writer(log, batch=1) as writer:
        writer.submit(0)
        assert gate.reached.wait(PATIENCE)
        for _ in range(67):
            writer.submit(event).cancel()
        with pytest.raises(TimeoutError):
            writer.submit(event, timeout=0.01)
        gate.open()


def test_a_cancelled_event_is_not_sent(log: Log, sim: Simulator) -> None:
    with Writer(log, linger=FOREVER) as writer:
        futures = [writer.submit(number) for number in range(3)]
        assert futures[1].cancel()
        writer.flush()
        assert futures[1].cancelled()
        alone = writer.submit(3)
        assert alone.cancel()
    assert bodies(sim) == [[0, 2]]


def test_flush_returns_when_all_is_answered(log: Log) -> None:
    with Writer(log, batch=2, linger=FOREVER) as writer:
        writer.flush()
        futures = [writer.submit(number) for number in range(5)]
        writer.flush()
        assert all(future.done() for future in futures)
        # Afterwards it lingers again.
        later = writer.submit(5)
        assert not wait([later], timeout=0.05).done


def test_closing_answers_all_and_takes_no_more(log: Log) -> None:
    writer = Writer(log, linger=FOREVER)
    future = writer.submit(1)
    writer.close()
    assert future.done()
    with pytest.raises(RuntimeError, match="closed"):
        writer.submit(2)
    writer.close()


def test_a_submit_that_waits_for_room_hears_of_the_closing(log: Log, sim: Simulator) -> None:
    gate = Gate()
    sim.faults.append(gate)
    writer = Writer(log, batch=1, queue=1)
    writer.submit(0)
    assert gate.reached.wait(PATIENCE)
    writer.submit(1)
    heard: Future[bool] = Future()

    def submit() -> None:
        try:
            writer.submit(2)
        except RuntimeError:
            heard.set_result(True)

    waiting = threading.Thread(target=submit)
    waiting.start()
    closing = threading.Thread(target=writer.close)
    closing.start()
    assert heard.result(5)
    gate.open()
    closing.join()
    waiting.join()


def test_the_events_of_many_threads_all_arrive(log: Log, sim: Simulator) -> None:
    futures: list[Future[Receipt]] = []

    def submit(writer: Writer) -> None:
        futures.extend([writer.submit({"n": number}) for number in range(50)])

    with Writer(log, batch=16, queue=20) as writer:
        threads = [threading.Thread(target=submit, args=(writer,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(future.result().index for future in futures) == list(range(200))
    assert sim.size == 200


def test_a_callback_may_fail_and_the_others_still_hear(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Future[Receipt]) -> None:
        raise ZeroDivisionError

    with Writer(log, linger=FOREVER) as writer:
        futures = [writer.submit(number) for number in range(2)]
        futures[0].add_done_callback(fail)
    assert [future.result().index for future in futures] == [0, 1]
    assert "ZeroDivisionError" in caplog.text


def test_a_program_that_forgets_to_close_neither_hangs_nor_loses_events(sim: Simulator, tmp_path: Path) -> None:
    program = (
        "import sys; from tlog_client import Log, Writer;"
        "Writer(Log(*sys.argv[1:3], state=sys.argv[3]), linger=3600).submit({'n': 1})"
    )
    subprocess.run(
        [sys.executable, "-c", program, sim.url, str(sim.key), str(tmp_path)],
        env=os.environ,
        check=True,
        timeout=20,
    )
    assert sim.size == 1


def test_an_error_of_the_log_is_below_one_root(log: Log, sim: Simulator) -> None:
    sim.faults.append(refuse(403))
    with Writer(log) as writer:
        future = writer.submit(1)
    assert isinstance(future.exception(), TlogError)
