"""What `record` returned from is logged once, whatever ends: the program, the server, the room on disk."""

import hashlib
import json
import logging
import logging.config
import logging.handlers
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live import PATIENCE, Segment, Server, free_port, tell, until
from simulator import Answer, Simulator, alter, drop_after, refuse, unavailable

from tlog_client import MalformedError, StateError
from tlog_client.cli import run
from tlog_client.files import read_signer
from tlog_client.recording import Recorder, TlogHandler, open_handler

NOBODY = "http://127.0.0.1:9/segments/payments"

CHILD = """
import os, sys
from tlog_client.recording import Recorder
recorder = Recorder(*sys.argv[1:4])
print("ready", flush=True)
for number in range(int(sys.argv[4])):
    recorder.record({"n": number, "pid": os.getpid()})
    print(number, flush=True)
"""


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOG_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def logged(segment: Segment) -> list[Any]:
    return [entry["payload"] for entry in segment.entries(0, segment.checkpoint().size)]


def payloads(sim: Simulator) -> list[Any]:
    return [json.loads(one.payload) for one in sim.logged]


def waiting(spool: Path) -> list[Path]:
    return sorted(spool.rglob("*.batch"))


def test_what_is_recorded_is_logged_and_leaves_the_disk(segment: Segment, spool: Path) -> None:
    with Recorder(segment.url, segment.key, spool) as recorder:
        for number in range(2_500):
            recorder.record({"n": number})
    assert logged(segment) == [{"n": number} for number in range(2_500)]
    assert waiting(spool) == []


def test_events_are_sent_without_being_closed_or_flushed(segment: Segment, spool: Path) -> None:
    with Recorder(segment.url, segment.key, spool) as recorder:
        recorder.record({"n": 1})
        until(lambda: segment.checkpoint().size == 1, "the event to be logged")


def test_a_killed_process_loses_nothing_that_it_recorded(segment: Segment, spool: Path) -> None:
    # The first run is cut off while it sends, the second while nobody answers.
    told: list[tuple[int, int]] = []
    for url, wanted in ((segment.url, 1_500), (NOBODY, 500)):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, url, str(segment.key), str(spool), "1000000"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            stderr=subprocess.DEVNULL,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        numbers = [int(child.stdout.readline()) for _ in range(wanted)]
        while segment.checkpoint().size == 0:
            numbers += [int(child.stdout.readline()) for _ in range(100)]
        child.kill()
        child.wait(PATIENCE)
        rest = [int(line) for line in child.stdout.read().split("\n")[:-1]]
        told += [(child.pid, number) for number in numbers + rest]
        child.stdout.close()
    with Recorder(segment.url, segment.key, spool):
        until(lambda: not waiting(spool), "what was left to be sent")
    found = [(event["pid"], event["n"]) for event in logged(segment)]
    assert len(found) == len(set(found))
    # One more may have been recorded and not told.
    assert set(told) <= set(found)
    assert len(found) <= len(told) + 2


def test_events_wait_while_the_server_is_down(start_server: Callable[..., Server], spool: Path) -> None:
    port = free_port()
    server = start_server(port=port, workers=1)
    segment = server.create("payments")
    with Recorder(segment.url, segment.key, spool) as recorder:
        recorder.record({"n": 0})
        until(lambda: segment.checkpoint().size == 1, "the first to be logged")
        server.kill()
        for number in range(1, 2_000):
            recorder.record({"n": number})
        start_server(port=port, workers=1)
        until(lambda: segment.checkpoint().size == 2_000, "the rest to be logged")
    assert logged(segment) == [{"n": number} for number in range(2_000)]


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were synced to disk so far."""
    names: list[str] = []
    real = os.fsync

    def sync(descriptor: int) -> None:
        real(descriptor)
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr("os.fsync", sync)
    return names


def test_a_batch_is_synced_before_it_is_sent_and_others_while_it_is(
    sim: Simulator, spool: Path, synced: list[str]
) -> None:
    sent = threading.Event()
    go_on = threading.Event()

    def hold(work: Callable[[], Answer]) -> Answer:
        (batch,) = waiting(spool)
        assert batch.name in synced
        sent.set()
        assert go_on.wait(PATIENCE)
        return work()

    sim.faults.append(hold)
    with Recorder(sim.url, sim.key, spool) as recorder:
        recorder.record({"n": 1})
        assert sent.wait(PATIENCE)
        recorder.record({"n": 2})
        until(lambda: waiting(spool)[1].name in synced, "the next event to be synced")
        go_on.set()
    assert payloads(sim) == [{"n": 1}, {"n": 2}]


def test_what_was_flushed_is_synced(sim: Simulator, spool: Path, synced: list[str]) -> None:
    with Recorder(sim.url, sim.key, spool) as recorder:
        recorder.record({"n": 1})
        recorder.flush()
        (batch,) = waiting(spool)
        assert batch.name in synced


def test_a_batch_whose_answer_was_lost_is_logged_once(sim: Simulator, spool: Path) -> None:
    sim.faults += [drop_after, drop_after]
    with Recorder(sim.url, sim.key, spool) as recorder:
        recorder.record({"n": 1})
        until(lambda: not waiting(spool), "the batch to be done with")
    assert payloads(sim) == [{"n": 1}]
    posts = [request.headers["idempotency-key"] for request in sim.requests]
    assert len(posts) == 3
    assert len(set(posts)) == 1


def test_a_batch_is_sent_under_its_key_by_the_next_process_too(sim: Simulator, spool: Path) -> None:
    sim.faults.append(drop_after)
    for _ in range(2):
        with Recorder(sim.url, sim.key, spool) as recorder:
            if not sim.requests:
                recorder.record({"n": 1})
    assert payloads(sim) == [{"n": 1}]
    assert waiting(spool) == []


def test_an_answer_that_does_not_hold_is_no_receipt(sim: Simulator, spool: Path) -> None:
    def lie(answer: Any) -> None:
        answer["first_index"] += 1

    sim.lies["entries"] = alter(lie)
    with Recorder(sim.url, sim.key, spool) as recorder:
        recorder.record({"n": 1})
        until(lambda: len(sim.requests) > 1, "the batch to be sent again")
        assert len(waiting(spool)) == 1
        sim.lies.clear()
        until(lambda: not waiting(spool), "the batch to be verified")
    assert payloads(sim) == [{"n": 1}]


@pytest.mark.parametrize("status", [401, 403, 404, 409])
def test_a_refusal_that_can_end_is_outlasted(sim: Simulator, spool: Path, status: int) -> None:
    sim.faults.append(refuse(status))
    with Recorder(sim.url, sim.key, spool) as recorder:
        recorder.record({"n": 1})
        until(lambda: sim.size == 1, "the batch to be taken")


def test_a_batch_that_is_never_taken_is_set_aside_and_holds_up_no_other(sim: Simulator, spool: Path) -> None:
    sim.faults.append(refuse(400, detail="I do not like it"))
    with Recorder(sim.url, sim.key, spool) as recorder:
        recorder.record({"n": 1})
        until(lambda: list(spool.rglob("*.refused")), "the batch to be set aside")
        recorder.record({"n": 2})
    assert payloads(sim) == [{"n": 2}]
    (refused,) = spool.rglob("*.refused")
    assert refused.read_bytes().endswith(b' {"n":1}\n')


def test_a_busy_log_is_given_the_time_that_it_asks_for(sim: Simulator, spool: Path) -> None:
    sim.faults.append(unavailable("1"))
    with Recorder(sim.url, sim.key, spool) as recorder:
        began = time.monotonic()
        recorder.record({"n": 1})
        until(lambda: sim.size == 1, "the batch to be taken")
    assert time.monotonic() - began >= 1


def test_a_full_spool_drops_events_and_says_how_many(sim: Simulator, spool: Path) -> None:
    sim.faults += [unavailable()] * 2
    with Recorder(sim.url, sim.key, spool, max_bytes=1_000) as recorder:
        for number in range(200):
            recorder.record({"n": number})
        dropped = recorder.dropped
        assert dropped > 100
        assert sum(path.stat().st_size for path in waiting(spool)) <= 1_000
        until(lambda: not recorder.dropped, "it to be told")
        recorder.record({"n": "after"})
    *kept, notice, after = payloads(sim)
    assert kept == [{"n": number} for number in range(200 - dropped)]
    assert notice["dropped"] == dropped
    assert notice["message"] == f"events that were dropped: {dropped}, because the spool was full"
    assert after == {"n": "after"}


def test_what_was_dropped_is_told_by_the_next_process_if_need_be(sim: Simulator, spool: Path) -> None:
    with Recorder(NOBODY, sim.key, spool, max_bytes=100) as recorder:
        for number in range(20):
            recorder.record({"n": number})
        dropped = recorder.dropped
    with Recorder(sim.url, sim.key, spool):
        pass
    *kept, notice = payloads(sim)
    assert (len(kept) + dropped, notice["dropped"]) == (20, dropped)


def test_a_disk_that_fails_raises_nothing_and_leaves_no_half_event(sim: Simulator, spool: Path) -> None:
    program = """
import resource, signal, sys
from tlog_client.recording import Recorder
recorder = Recorder(*sys.argv[1:4])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for number in range(100):
    recorder.record({"n": number})
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
recorder.record({"n": "after"})
"""
    # While the file is as long as it may be it cannot be sent.
    sim.faults += [unavailable()] * 2
    command = [sys.executable, "-c", program, sim.url, str(sim.key), str(spool)]
    subprocess.run(command, check=True, timeout=PATIENCE, stderr=subprocess.DEVNULL)
    with Recorder(sim.url, sim.key, spool):
        until(lambda: not waiting(spool), "all to be sent")
    *kept, notice, after = payloads(sim)
    assert kept == [{"n": number} for number in range(len(kept))]
    assert len(kept) + notice["dropped"] == 100
    assert after == {"n": "after"}


def test_a_torn_last_line_is_no_event_and_a_damaged_one_is_told(sim: Simulator, spool: Path) -> None:
    with Recorder(NOBODY, sim.key, spool) as recorder:
        for number in range(3):
            recorder.record({"n": number})
    (batch,) = waiting(spool)
    batch.write_bytes(batch.read_bytes().replace(b'"n":1', b'"n":7') + b'deadbeef {"n"')
    with Recorder(sim.url, sim.key, spool):
        until(lambda: sim.size == 3, "the rest to be logged, and what was damaged")
    first, second, notice = payloads(sim)
    assert [first, second] == [{"n": 0}, {"n": 2}]
    assert (notice["dropped"], "damaged" in notice["message"]) == (1, True)


def test_an_empty_file_that_a_crash_left_is_done_with(sim: Simulator, spool: Path) -> None:
    with Recorder(NOBODY, sim.key, spool) as recorder:
        recorder.record({"n": 1})
    (batch,) = waiting(spool)
    batch.with_name(f"000000000000-{'a' * 32}.batch").touch()
    with Recorder(sim.url, sim.key, spool):
        until(lambda: not waiting(spool), "both to be done with")
    assert payloads(sim) == [{"n": 1}]


def test_a_file_that_somebody_removed_holds_up_no_other(sim: Simulator, spool: Path) -> None:
    sim.faults.append(unavailable())
    with Recorder(sim.url, sim.key, spool) as recorder:
        recorder.record({"n": 1})
        until(lambda: sim.requests, "the first to be sent")
        waiting(spool)[0].unlink()
        recorder.record({"n": 2})
        until(lambda: sim.size, "the second to be logged")
    assert payloads(sim) == [{"n": 2}]


@pytest.mark.parametrize("lane", ["0", "1"])
def test_what_somebody_else_put_into_the_folder_is_left_alone(sim: Simulator, spool: Path, lane: str) -> None:
    stranger = spool / hashlib.sha256(str(sim.key).encode()).hexdigest() / lane / "copy of 1.batch"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("a note")
    with Recorder(sim.url, sim.key, spool) as recorder:
        recorder.record({"action": "refund"})
        until(lambda: waiting(spool) == [stranger], "the batch to be sent")
        recorder.record({"action": "again"})
    assert [one["action"] for one in payloads(sim)] == ["refund", "again"]
    assert stranger.read_text() == "a note"


def test_two_that_share_a_folder_do_not_share_a_file(sim: Simulator, spool: Path) -> None:
    with Recorder(NOBODY, sim.key, spool) as first, Recorder(NOBODY, sim.key, spool) as second:
        first.record({"by": "first"})
        second.record({"by": "second"})
        assert len({path.parent for path in waiting(spool)}) == 2
    # And what both have left one alone finds.
    with Recorder(sim.url, sim.key, spool):
        until(lambda: not waiting(spool), "all to be sent")
    assert sorted(event["by"] for event in payloads(sim)) == ["first", "second"]


def test_what_waits_for_one_segment_never_comes_into_another(server: Server, spool: Path) -> None:
    first, second = server.create("recorded-first"), server.create("recorded-second")
    with Recorder(NOBODY, first.key, spool) as recorder:
        recorder.record({"n": 1})
    with Recorder(second.url, second.key, spool) as recorder:
        recorder.record({"n": 2})
    assert logged(second) == [{"n": 2}]
    with Recorder(first.url, first.key, spool):
        pass
    assert logged(first) == [{"n": 1}]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_spool_of_its_own(segment: Segment, spool: Path) -> None:
    with Recorder(segment.url, segment.key, spool) as recorder:
        recorder.record({"by": "parent"})
        child = os.fork()
        if child == 0:
            # Whatever it does, it must not go on with the tests.
            try:
                recorder.record({"by": "child"})
                recorder.close()
            finally:
                os._exit(0)
        recorder.record({"by": "parent"})
        os.waitpid(child, 0)
    assert sorted(event["by"] for event in logged(segment)) == ["child", "parent", "parent"]
    (folder,) = spool.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_outlives_its_parent_does_not_keep_its_spool(sim: Simulator, spool: Path) -> None:
    program = """
import os, sys, time
from tlog_client.recording import Recorder
recorder = Recorder(*sys.argv[1:4])
recorder.record({"by": "parent"})
if os.fork() == 0:
    time.sleep(60)
print("forked", flush=True)
os.kill(os.getpid(), 9)
"""
    command = [sys.executable, "-W", "ignore", "-c", program, NOBODY, str(sim.key), str(spool)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, process_group=0) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == b"forked\n"
            parent.wait(PATIENCE)
            with Recorder(sim.url, sim.key, spool):
                until(lambda: not waiting(spool), "the parent's event to be sent")
        finally:
            os.killpg(parent.pid, signal.SIGKILL)
    assert payloads(sim) == [{"by": "parent"}]


def test_threads_record_together(segment: Segment, spool: Path) -> None:
    with Recorder(segment.url, segment.key, spool) as recorder:

        def work(thread: int) -> None:
            for number in range(500):
                recorder.record({"thread": thread, "n": number})

        workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    found = logged(segment)
    for thread in range(4):
        assert [event["n"] for event in found if event["thread"] == thread] == list(range(500))


def test_nothing_is_waited_for_when_nobody_answers(spool: Path, segment: Segment) -> None:
    began = time.monotonic()
    with Recorder(NOBODY, segment.key, spool) as recorder:
        for number in range(1_000):
            recorder.record({"n": number})
        recorder.flush()
    assert time.monotonic() - began < 5


def test_a_closed_recorder_begins_anew(sim: Simulator, spool: Path) -> None:
    recorder = Recorder(sim.url, sim.key, spool)
    for number in range(2):
        recorder.record({"n": number})
        recorder.close()
    recorder.close()
    assert payloads(sim) == [{"n": 0}, {"n": 1}]


def test_what_cannot_work_is_said_at_once(sim: Simulator, spool: Path) -> None:
    with pytest.raises(MalformedError, match="URL"):
        Recorder("nowhere", sim.key, spool)
    spool.write_text("a file")
    with pytest.raises(StateError, match=f"the spool {spool} cannot be used"):
        Recorder(sim.url, sim.key, spool)


def test_events_can_be_signed(server: Server, spool: Path, tmp_path: Path) -> None:
    segment = server.create("recorded-signed")
    key, vkey = tmp_path / "writer.key", tmp_path / "writer.vkey"
    assert run(["keygen", "anonymous", "-o", str(key)]) == 0
    vkey.write_text(f"{read_signer(key).verifier}\n")
    tell("writer", "add", vkey, "--data", server.data)
    with Recorder(segment.url, segment.key, spool, signer=key) as recorder:
        for number in range(3):
            recorder.record({"n": number})
    signed = [json.loads(one["entry"])["writer_sequence"] for one in segment.entries(0, 3)]
    assert signed == [0, 1, 2]


# The handler


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """The root logger, without handlers, and with nothing too small for it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    root.setLevel(logging.DEBUG)
    yield root
    for handler in root.handlers[:]:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_handler_logs_records(segment: Segment, spool: Path, logger: logging.Logger) -> None:
    handler = open_handler(url=segment.url, key=str(segment.key), spool=str(spool))
    logger.addHandler(handler)
    logging.getLogger("shop").warning("refunded %d", 12, extra={"actor": "alice", "action": "refund"})
    handler.close()
    (event,) = logged(segment)
    assert (event["message"], event["level"], event["logger"]) == ("refunded 12", "WARNING", "shop")
    assert (event["actor"], event["action"]) == ("alice", "refund")


def test_a_handler_is_configured_without_code(segment: Segment, spool: Path, logger: logging.Logger) -> None:
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "tlog": {
                    "()": "tlog_client.recording.open_handler",
                    "url": segment.url,
                    "key": str(segment.key),
                    "spool": str(spool),
                    "level": "WARNING",
                }
            },
            "root": {"handlers": ["tlog"], "level": "DEBUG"},
        }
    )
    logging.getLogger("shop").info("too small")
    logging.getLogger("shop").error("large enough")
    logger.handlers[0].close()
    assert [event["message"] for event in logged(segment)] == ["large enough"]


def test_handlers_do_not_log_what_sending_says(sim: Simulator, spool: Path, logger: logging.Logger) -> None:
    # Each alone would hear itself, and two would hear each other.
    handlers = [TlogHandler(Recorder(sim.url, sim.key, spool)) for _ in range(2)]
    sim.faults.append(unavailable())
    for handler in handlers:
        logger.addHandler(handler)
    logging.getLogger("shop").debug("once")
    until(lambda: sim.size == 2, "both to have logged it")
    time.sleep(0.5)
    for handler in handlers:
        handler.close()
    assert [event["message"] for event in payloads(sim)] == ["once", "once"]


def test_nor_what_a_queue_hands_on(sim: Simulator, spool: Path, logger: logging.Logger) -> None:
    records: queue.Queue[Any] = queue.Queue()
    handler = TlogHandler(Recorder(sim.url, sim.key, spool))
    listener = logging.handlers.QueueListener(records, handler)
    listener.start()
    logger.addHandler(logging.handlers.QueueHandler(records))
    logging.getLogger("shop").debug("once")
    until(lambda: sim.size == 1, "it to be logged")
    time.sleep(0.5)
    listener.stop()
    handler.close()
    assert [event["message"] for event in payloads(sim)] == ["once"]


def test_what_a_handler_cannot_make_an_event_of_is_no_error_of_the_program(
    sim: Simulator, spool: Path, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = TlogHandler(Recorder(sim.url, sim.key, spool))
    told: list[logging.LogRecord] = []
    monkeypatch.setattr(handler, "handleError", told.append)
    monkeypatch.setattr("tlog_client.recording.handler.of_record", lambda _: 1 / 0)
    logger.addHandler(handler)
    logging.getLogger("shop").info("x")
    assert len(told) == 1


def test_the_end_of_a_program_sends_what_it_logged(segment: Segment, spool: Path) -> None:
    program = """
import logging, sys
from tlog_client.recording import open_handler
logging.getLogger().addHandler(open_handler(url=sys.argv[1], key=sys.argv[2], spool=sys.argv[3]))
logging.getLogger().error("the last words")
"""
    subprocess.run(
        [sys.executable, "-c", program, segment.url, str(segment.key), str(spool)], check=True, timeout=PATIENCE
    )
    assert [event["message"] for event in logged(segment)] == ["the last words"]
