"""The command `tlog-client monitor`: puts a monitor together, and says how it ended."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from traceback import format_exception
from typing import Final
from urllib.parse import urlsplit

from tlog_client.errors import StateError
from tlog_client.monitor.app import Handler
from tlog_client.monitor.bulletin import Herald, bulletin_routes, http_sender
from tlog_client.monitor.exchange import exchange_route, send_exchange
from tlog_client.monitor.finding import Class
from tlog_client.monitor.follower import Follower, Settings
from tlog_client.monitor.gossip import Gossip
from tlog_client.monitor.judge import Judge
from tlog_client.monitor.memory import Memory
from tlog_client.monitor.report import EvidenceFolder, Teller, Webhook
from tlog_client.monitor.rounds import Rounds
from tlog_client.monitor.source import http_source
from tlog_client.transport import Backoff, check_url
from tlog_core.checkpoint import Checkpoint
from tlog_core.errors import MalformedError, TlogError
from tlog_core.gossip import Peer
from tlog_core.note import SignerKey
from tlog_core.policy import TrustedLog, TrustPolicy

FINE: Final = 0
EVIDENCE: Final = 1
COMPLAINT: Final = 3
VIOLATION: Final = 4

TIMEOUT: Final = 30.0
DEADLINE: Final = 120.0
FLUSH_SECONDS: Final = 15.0

Listen = Callable[[Judge, Rounds, Mapping[tuple[str, str], Handler]], AbstractContextManager[None]]
"""Serves what a monitor shows, and these routes, until its block ends."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a monitor is to run; times are in seconds. `tell` takes a finding as a line and as text, `say` text alone.

    By the key `signer` it gossips with `peers`, if there are any, and says what it knows of each log: to the log
    itself if it `posts` that.
    """

    policy: TrustPolicy
    state: Path
    settings: Settings
    interval: float
    token: str | Path | None
    webhook: str | None
    receipts: Sequence[tuple[str, bytes]]
    tell: Callable[[bytes, str], None]
    say: Callable[[str], None]
    verified: Callable[[Checkpoint], None]
    progress: Callable[[str, int, int], None]
    listen: Listen | None = None
    peers: Sequence[Peer] | None = None
    signer: SignerKey | None = None
    posts: bool = False


def followed(policy: TrustPolicy) -> list[TrustedLog]:
    """Return the logs of a policy that have a URL, each origin once."""
    return list({log.key.name: log for log in reversed(policy.logs) if log.url}.values())[::-1]


def check_policy(policy: TrustPolicy, *, credential: bool) -> None:
    """Raise MalformedError for what no monitor can follow, or if a credential would go to more than one server."""
    if not policy.logs:
        raise MalformedError("the trust policy has no log: there is nothing to follow; add a line log <vkey> <url>")
    for url in [*(log.url for log in followed(policy)), *(one.url for one in policy.witnesses if one.url)]:
        check_url(url)
    if any(not witness.name.isprintable() for witness in policy.witnesses):
        raise MalformedError("the name of a witness in the trust policy is not printable; choose another")
    if credential and len({urlsplit(log.url)[:2] for log in followed(policy)}) > 1:
        raise MalformedError("the logs of the trust policy are on several servers, and a credential is for one")


@contextmanager
def monitor(options: Options) -> Iterator[tuple[Judge, Rounds, Gossip | None]]:
    """Put a monitor together, and take it apart; raise StateError if its folder cannot be used.

    Its rounds, and those of its gossip, are for the caller to make.
    """
    with ExitStack() as stack:
        memory = Memory(options.state)
        stack.callback(memory.close)
        folder = EvidenceFolder(options.state / "evidence")
        teller = Teller(memory, options.tell)
        webhook = None if options.webhook is None else Webhook(memory, options.webhook, failed=options.say)

        gossip: Gossip | None = None

        def reported() -> None:
            teller.flush()
            if webhook is not None:
                webhook.wake()
            if gossip is not None:
                gossip.notice()

        judge = Judge(options.policy, memory, clock=time.time, keep=folder.keep, reported=reported)
        source = http_source(
            clock=time.time,
            token=options.token,
            timeout=TIMEOUT,
            backoff=Backoff(attempts=3, longest=5.0),
            deadline=DEADLINE,
        )
        rounds: Rounds | None = None

        def progress(origin: str, looked: int, size: int) -> None:
            if rounds is not None:
                rounds.live()
            options.progress(origin, looked, size)

        herald: Herald | None = None
        if options.signer is not None:
            herald = Herald(
                options.signer,
                judge,
                gossip=lambda: None if gossip is None else gossip.last,
                clock=_milliseconds,
                send=http_sender(options.token),
                say=options.say,
            )
        followers = [
            Follower(
                log,
                judge,
                source,
                settings=options.settings,
                verified=options.verified,
                progress=progress,
                stopped=lambda: rounds is not None and rounds.stopped(),
                ended=herald.post if herald is not None and options.posts else lambda _: None,
            )
            for log in followed(options.policy)
        ]

        def failed(origin: str, error: Exception) -> None:
            options.say(f"{origin}: the round failed; please report this\n{''.join(format_exception(error))}")

        rounds = Rounds(followers, interval=options.interval, random=random.random, failed=failed)
        _take_up(memory, folder, judge, options)
        if webhook is not None:
            webhook.start()
            stack.callback(webhook.stop, FLUSH_SECONDS)
        if options.peers is not None and options.signer is not None:
            gossip = _gossip(options.signer, options.peers, judge)
        routes = {
            **({} if gossip is None else exchange_route(gossip)),
            **({} if herald is None else bulletin_routes(herald, judge)),
        }
        stack.enter_context(nullcontext() if options.listen is None else options.listen(judge, rounds, routes))
        yield judge, rounds, gossip


def status(judge: Judge) -> int:
    """Return the exit status that what is known amounts to: the worst of it."""
    memory = judge.memory
    if memory.evidence(1):
        return EVIDENCE
    if any(found == Class.VIOLATION.value for _, found, _, _ in memory.counted()):
        return VIOLATION
    if any(memory.troubles(memory.known(origin)) for origin in judge.origins):
        return COMPLAINT
    return FINE


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000


def _gossip(signer: SignerKey, peers: Sequence[Peer], judge: Judge) -> Gossip:
    return Gossip(
        signer,
        peers,
        judge,
        clock=_milliseconds,
        # Who could foretell whom we ask next could prepare for it.
        random=random.SystemRandom(),
        send=send_exchange,
    )


def _take_up(memory: Memory, folder: EvidenceFolder, judge: Judge, options: Options) -> None:
    # A crash may have left a file that was not reported; and whoever took one away did not take it from the memory.
    known = dict(memory.evidence_names())
    files = folder.files(passed_over=options.say)
    for name, raw in known.items():
        if files.get(name) != raw:
            options.say(f"{name}: the evidence was not there as it was kept, and is restored")
        folder.keep(name, raw)
    for name, raw in files.items():
        if name not in known:
            _hear(options.say, name, partial(judge.hear_evidence, raw, source="folder"))
    for name, raw in options.receipts:
        _hear(options.say, name, partial(judge.hear_receipt, raw, source="receipt"))
    judge.flush()
    without = set(judge.origins) - {log.key.name for log in followed(options.policy)}
    for origin in sorted(without):
        options.say(f"the trust policy has no URL for {origin}: it is heard of only, and not followed")
    if options.policy.quorum is None:
        options.say("the trust policy asks for no witnesses: how fresh a head is cannot be told")


def _hear(say: Callable[[str], None], name: str, hear: Callable[[], object]) -> None:
    try:
        hear()
    except StateError:
        raise
    except TlogError as error:
        say(f"{name}: {error}")
