"""Real senders of syslog before a real relay before a real log, which asks who comes."""

import logging
import os
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from logging.handlers import SysLogHandler
from pathlib import Path
from socket import SOCK_STREAM

import pytest
from certificate import make_certificate
from live import until
from relaying import TLOG_CLIENT, Log, Relay, kept_in, make_log, relaying, rsyslog

SYSLOG = ("--syslog", "127.0.0.1:0")
COUNTED = 'template="RSYSLOG_SyslogProtocol23Format" TCP_Framing="octet-counted"'


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    made = make_log(tmp_path_factory.mktemp("relay") / "data")
    yield made
    made.server.kill()


@pytest.fixture
def log(running: Log) -> Log:
    """A log in which nothing is that another test has sent."""
    running.mark()
    return running


@pytest.fixture
def relay(log: Log, tmp_path: Path) -> Iterator[Relay]:
    with relaying(tmp_path, log.server.url, log.token, *SYSLOG) as started:
        yield started


def texts(count: int, first: int = 0) -> list[str]:
    return [f"refund number {number} of 12.00 €" for number in range(first, first + count)]


def test_each_message_of_rsyslog_is_logged_once_and_in_order_though_the_log_is_killed(
    log: Log, relay: Relay, tmp_path: Path
) -> None:
    sent = texts(1_500)
    with rsyslog(tmp_path / "rsyslog", relay.ports[0], COUNTED) as give:
        give(sent[:1_000])
        until(log.messages, "the first message")
        log.server.kill()
        give(sent[1_000:])
        log.restart()
        until(lambda: log.came("syslog") >= len(sent), "all messages")
        assert relay.stop() == 0
    found = log.messages()
    assert [one["message"].strip() for one in found] == sent
    assert {(one["version"], one["app_name"], one["procid"], one["severity"]) for one in found} == {(1, "till", "7", 6)}
    assert log.kept() == []


def test_rsyslog_sends_lines_as_older_senders_do(log: Log, relay: Relay, tmp_path: Path) -> None:
    sent = texts(50)
    with rsyslog(tmp_path / "rsyslog", relay.ports[0], 'template="older"') as give:
        give(sent)
        until(lambda: len(log.messages()) >= len(sent), "all messages")
    found = log.messages()
    assert [one["message"] for one in found] == sent
    assert {(one["app_name"], one["procid"], one.get("version")) for one in found} == {("till", "7", None)}
    assert all(re.fullmatch("<14>... .. ..:..:.. .*", one["raw"]) for one in found)


def test_over_tls_only_clients_are_heard_whose_names_are_allowed(log: Log, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    files = {"CAFile": certificate, "CertFile": certificate, "KeyFile": key}
    tls = " ".join(f'DefaultNetstreamDriver{name}="{path}"' for name, path in files.items())
    mode = 'StreamDriver="gtls" StreamDriverMode="1" StreamDriverAuthMode="x509/name"'
    options = f'{COUNTED} {mode} StreamDriverPermittedPeers="localhost"'
    listening: tuple[str | Path, ...] = ("--syslog-tls", "127.0.0.1:0", "--certificate", certificate)
    listening += ("--certificate-key", key, "--clients", certificate, "--client")
    sent = texts(50)
    with (
        relaying(tmp_path, log.server.url, log.token, *listening, "elsewhere") as deaf,
        rsyslog(tmp_path / "refused", deaf.ports[0], options, tls) as give,
    ):
        give(sent)
        until(lambda: "is none of the clients that may send here" in deaf.said(), "the client to be refused")
        # Nor who shows no certificate, or speaks no TLS.
        with deaf.connect() as connection, suppress(ConnectionError):
            connection.sendall(b"<34>in the clear\n" * 9)
            while connection.recv(99):
                pass
        until(lambda: "a connection failed" in deaf.said(), "TLS to fail")
        assert (deaf.stop(), log.messages(), log.kept()) == (0, [], [])
    with (
        relaying(tmp_path, log.server.url, log.token, *listening, "localhost") as relay,
        rsyslog(tmp_path / "heard", relay.ports[0], options, tls) as give,
    ):
        give(sent)
        until(lambda: len(log.messages()) >= len(sent), "all messages")
    assert [one["message"].strip() for one in log.messages()] == sent


def test_over_tls_no_client_is_heard_without_a_certificate_where_it_takes_one(log: Log, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    files = ("--certificate", certificate, "--certificate-key", key, "--clients", certificate)
    with relaying(tmp_path, log.server.url, log.token, "--syslog-tls", "127.0.0.1:0", *files) as relay:
        for shows in (False, True):
            context = ssl.create_default_context(cafile=certificate)
            if shows:
                context.load_cert_chain(certificate, key)
            with suppress(OSError), context.wrap_socket(relay.connect(), server_hostname="localhost") as connection:
                connection.sendall(b"8 <34>%d by" % shows)
                connection.unwrap()
        until(log.messages, "the message")
        assert relay.stop() == 0
    assert log.raw() == [b"<34>1 by"]


def test_what_python_and_logger_send_comes_in(log: Log, relay: Relay) -> None:
    handler = SysLogHandler(("127.0.0.1", relay.ports[0]), socktype=SOCK_STREAM)
    for text in ("one", "two\nlines"):
        handler.handle(logging.LogRecord("till", logging.ERROR, "", 0, text, None, None))
    handler.close()
    logger = ["logger", "--tcp", "--server", "127.0.0.1", "--port", str(relay.ports[0]), "--tag", "till"]
    data = ["--sd-id", "zoo@32473", "--sd-param", 'tiger="hungry"']
    for options in (["--rfc5424", *data], ["--rfc5424", "--octet-count"], ["--rfc3164"]):
        subprocess.run([*logger, *options, "--", "hello\tworld"], check=True)
    until(lambda: len(log.messages()) + len(log.kept()) == 6, "all messages")
    found = log.messages()
    assert sorted(one["message"] for one in found) == ["hello\tworld"] * 3 + ["one", "two"]
    # A sender that ends its messages with NUL should not break its lines: what the second is, is no message.
    assert log.kept() == ["lines"]
    assert [one.get("app_name") for one in found if one["message"] == "hello\tworld"] == ["till"] * 3
    zoo = [pair for one in found for pair in one.get("structured_data", []) if pair["key"] == "zoo@32473"]
    assert zoo == [{"key": "zoo@32473", "value": [{"key": "tiger", "value": "hungry"}]}]


def test_what_is_no_message_is_kept_and_says_what_it_is(log: Log, relay: Relay) -> None:
    relay.send(b"<34>1 - - - - - - good\n<34>1 - - - - - [x bad\nno priority\n")
    with relay.connect() as connection:
        connection.sendall(b"8 <34>good9 <34>short" + b"10 <34>cut")
        connection.shutdown(1)
        assert connection.recv(1) == b""
    with relay.connect() as connection:
        connection.sendall(b"8 <34>goodx <34>bad")
        # It is cut off; and others are still heard.
        assert connection.recv(1) == b""
        where = "{}:{}".format(*connection.getsockname())
    relay.send(b"<34>good")
    until(lambda: len(log.messages()) + len(log.kept()) == 9, "all of it")
    assert sorted(log.raw()) == [b"<34>1 - - - - - - good", *[b"<34>good"] * 3, b"<34>short"]
    kept = sorted(log.kept())
    assert kept[:2] == ["<34>1 - - - - - [x bad", "no priority"]
    assert re.fullmatch(r"tlog-client relay: a message whose end is missing, from 127.0.0.1:\d+: <34>cut", kept[2])
    assert kept[3] == f"tlog-client relay: bytes at which no message begins, from {where}: x <34>bad"
    assert f"{where} sends what is no message of syslog; it is cut off" in relay.said()


def test_a_giant_is_kept_in_parts(log: Log, relay: Relay) -> None:
    giant = "<34>" + "".join(map(chr, range(32, 127))) * 25_000
    relay.send(b"%d %b8 <34>good" % (len(giant), giant.encode()))
    # Each segment is written by itself.
    until(lambda: log.raw() == [b"<34>good"] and len(log.kept()) == 3, "its parts, and what is behind it")
    parts = [re.fullmatch("tlog-client relay: (.*), from 127.0.0.1:[0-9]+: (.*)", kept) for kept in log.kept()]
    found = {part[1]: part[2] for part in parts if part}
    numbers = ["part 1", "part 2", "the last part 3"]
    assert list(found) == [f"{number} of a message that is too long" for number in numbers]
    assert "".join(found.values()) == giant


def test_while_the_log_is_away_the_relay_keeps_so_much_and_has_senders_wait(
    log: Log, relay: Relay, tmp_path: Path
) -> None:
    log.server.kill()
    before, sent = relay.memory(), 0
    with relay.connect() as connection:
        connection.settimeout(1.0)
        with suppress(TimeoutError):
            while sent < 2_000:
                connection.sendall(b"<34>1 - - - - - - %d " % sent + b"x" * 60_000 + b"\n")
                sent += 1
        # 16 MiB, and what the kernel holds.
        assert 16 << 20 < sent * 60_000 < 32 << 20
        assert sum(map(len, kept_in(tmp_path))) < 17 << 20
        assert relay.memory() - before < 32 << 20
        log.restart()
        connection.settimeout(30)
    until(lambda: log.came("syslog") >= sent, "all that was sent")
    assert [int(one["message"].split()[0]) for one in log.messages()][:sent] == list(range(sent))
    until(lambda: "the log takes it again" in relay.said(), "the relay to say so")


def test_a_stop_sends_what_is_under_way_while_the_log_takes_it(log: Log, relay: Relay) -> None:
    with relay.connect() as connection:
        connection.sendall(b"<34>first\n" * 100 + b"<34>no end")
        relay.process.send_signal(signal.SIGTERM)
        # Its sender sees the end, and what it has sent by then is heard.
        assert connection.recv(1) == b""
        connection.sendall(b" but here\n<34>last\n")
    assert relay.process.wait(30) == 0
    assert log.raw() == [*[b"<34>first"] * 100, b"<34>no end but here", b"<34>last"]
    assert "kept" not in relay.said()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_relay_leaves_the_next_sends(log: Log, tmp_path: Path, end: signal.Signals) -> None:
    log.server.kill()
    sent = [b"<34>%d\\n\n of \xe9" % number for number in range(200)]
    with relaying(tmp_path, log.server.url, log.token, *SYSLOG) as relay:
        for place in (0, 100):
            relay.send(b"".join(b"%d %b" % (len(one), one) for one in sent[place : place + 100]))
            until(lambda: len(kept_in(tmp_path)) == place + 100, "the relay to have read them")  # noqa: B023
        relay.process.send_signal(end)
        assert relay.process.wait(30) == (0 if end is signal.SIGTERM else -end)
        assert ("kept in" in relay.said()) == (end is signal.SIGTERM)
    log.restart()
    with relaying(tmp_path, log.server.url, log.token, *SYSLOG) as relay:
        until(lambda: log.came("syslog") >= len(sent), "all that was left")
        relay.send(b"<34>and more")
        until(lambda: log.came("syslog") > len(sent), "what came then")
        assert relay.stop() == 0
    assert log.raw() == [*sent, b"<34>and more"]
    assert kept_in(tmp_path) == []


@pytest.mark.usefixtures("relay")
def test_of_two_relays_each_has_its_folder(log: Log, tmp_path: Path) -> None:
    command = [str(TLOG_CLIENT), "relay", "--server", log.server.url, "--state", str(tmp_path / "state"), *SYSLOG]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, "another relay keeps what is not logged yet in" in run.stderr) == (3, True)


def test_a_token_that_is_not_taken_loses_nothing(log: Log, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("tlog_wrong")
    output = tmp_path / "relay.said"
    with output.open("wb") as out:
        environment = {name: value for name, value in os.environ.items() if name != "TLOG_TOKEN"}
        process = subprocess.Popen(
            [TLOG_CLIENT, "relay", "--server", log.server.url, "--state", tmp_path, "--syslog", tmp_path / "socket"],
            stderr=out,
            env={**environment, "TLOG_TOKEN_FILE": str(token)},
        )
    until((tmp_path / "socket").is_socket, "the relay to listen")
    subprocess.run(["logger", "--socket", tmp_path / "socket", "--socket-errors=on", "--", "over a socket"], check=True)
    until(lambda: "trying again" in output.read_text(), "the relay to be refused")
    token.write_text(log.token)
    until(log.messages, "the message")
    assert [one["message"] for one in log.messages()] == ["over a socket"]
    process.terminate()
    assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "there is nothing to listen for; give --syslog, --syslog-tls or --vault"),
        (("--syslog", "601"), "expected HOST:PORT"),
        (("--syslog-tls", "127.0.0.1:0"), "--syslog-tls needs --certificate and --certificate-key"),
        (("--syslog", "127.0.0.1:0", "--clients", __file__), "is what --clients is for"),
        (("--syslog", "127.0.0.1:0", "--client", "x"), "--client needs --clients"),
        (("--syslog", "203.0.113.1:601"), "cannot listen at 203.0.113.1:601: cannot assign requested address"),
    ],
)
def test_what_cannot_be_listened_for_is_said(options: tuple[str, ...], says: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [TLOG_CLIENT, "relay", "--server", "http://127.0.0.1:1", "--state", tmp_path, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == (3 if says.startswith("cannot") else 2)
    assert says in run.stderr
    assert "Traceback" not in run.stderr
