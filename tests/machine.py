"""The moves of a model test: what people do with a log, and what happens to it; after each the model looks at all.

`DirectMachine` moves a log within this process, often; `ServedMachine` real processes, with a witness and a monitor.
Whatever comes of a move is told to the model (`model`), which knows what may come of it.

Run as a program, `machine.py BUG MACHINE EXAMPLES STEPS SEED`, it moves a log with a bug that is planted in it, and
ends with status 1 and what was found, or with status 0 if that was nothing.
"""

import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import planted
import reference
from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from live import until
from model import UNKNOWN, Answer, Model, Segment, Sent
from tally import Tally
from worlds import NAMES, SIGNED, Direct, Served

from tlog_core.checkpoint import open_checkpoint

PLACE = st.integers(0, 1 << 16)
"""One of those that there are, by their number."""
_AT_ONCE = 5
"""How many logs are moved by one seed: of these the first is always the simplest that there is."""


class Moves(RuleBasedStateMachine):
    """The moves that are the same in both worlds."""

    world: Direct | Served
    deaths: st.SearchStrategy[int]

    def begin(self, world: Direct | Served) -> None:
        self.world = world
        self.model = Model()
        self.backups: list[str] = []
        self.later: list[str] = []
        for name, key in world.keys().items():
            own = name in ("control", "access")
            (self.model.own if own else self.model.segments)[name] = Segment(name, key, own=own)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            # What is left says nothing new of a log of which something is known to be wrong.
            if sys.exc_info()[0] is None:
                self.end()
        finally:
            self.world.close()

    def end(self) -> None:
        """Check what is left when all is over: also tlog's own segments, and every byte on disk."""
        self.world.stop()
        for name, one in self.model.own.items():
            one.look(self.world.reserved(name))
        behind = {one.name for one in [*self.model.segments.values(), *self.model.own.values()] if one.behind}
        # What was cut off in sealing a segment the next server ends, as `tlog fsck` says; here none starts any more.
        begun = {one.name for one in self.model.segments.values() if one.sealing and one.sealed_at is None}
        findings = [
            one
            for one in self.world.findings()
            if one.partition(":")[0] not in behind
            and not (one.partition(":")[0] in begun and one.endswith("; a server that starts makes it good"))
        ]
        assert not findings, findings

    @invariant()
    def all_is_there(self) -> None:
        for one in self.model.there():
            one.look(self.world.show(one.name))

    # What people do

    def segment(self, place: int, *, signed: bool = False) -> Segment:
        found = [one for one in self.model.there() if (one.name == SIGNED) == signed]
        return found[place % len(found)]

    def append(self, one: Segment, sent: Sent) -> Answer:
        return self.world.append(one.name, sent)

    def refusals(self, one: Segment) -> list[str]:
        """Return for what reasons a segment may take nothing now."""
        return (["frozen"] if one.behind else []) + (["sealed"] if one.sealing else [])

    def begun(self, one: Segment, count: int, *, batch: bool, signed: bool = False) -> Sent:
        sent = Sent(self.model.key(), self.model.events(one.name, count), batch, signed)
        one.sent.append(sent)
        return sent

    @rule(place=PLACE, count=st.integers(1, 4))
    def log_events(self, place: int, count: int) -> None:
        one = self.segment(place)
        sent = self.begun(one, count, batch=count > 1)
        one.answered(sent, self.append(one, sent), *self.refusals(one))

    @rule(place=PLACE, which=PLACE)
    def send_again(self, place: int, which: int) -> None:
        """Whatever became of a request, sent again it gets the one receipt that there is for it."""
        one = self.segment(place)
        known = [sent for sent in one.sent if not sent.forgotten]
        if known:
            self.again(one, known[which % len(known)])

    def again(self, one: Segment, sent: Sent) -> None:
        if sent.signed and one.behind:
            # The client's library believes no head older than one that it has seen.
            return
        logged = bool(sent.receipts)
        one.answered(sent, self.append(one, sent), *([] if logged else self.refusals(one)))

    @rule(place=PLACE, which=PLACE)
    def use_a_key_again(self, place: int, which: int) -> None:
        one = self.segment(place)
        known = [sent for sent in one.sent if not sent.forgotten and sent.receipts]
        if known:
            other = self.begun(one, 1, batch=False)
            other.key = known[which % len(known)].key
            answer = self.append(one, other)
            assert answer == "idempotency-mismatch", f"{other.key} of {one.name} was taken for other events: {answer}"
            # Sent again it would be refused again, unless the key is forgotten.
            other.refused = other.forgotten = True

    @rule()
    def create_a_segment(self) -> None:
        name = f"new-{self.model.next()}"
        self.created(name, self.world.create(name))

    @rule(place=PLACE)
    def create_it_again(self, place: int) -> None:
        name = list(self.model.segments)[place % len(self.model.segments)]
        if name != SIGNED:
            self.created(name, self.world.create(name))

    def created(self, name: str, answer: str) -> None:
        known = self.model.segments.get(name)
        if answer in self.control_refusals():
            return
        keys = self.world.keys()
        if answer == UNKNOWN:
            if name not in keys:
                assert known is None, f"{name} is gone"
                return
            answer = str(keys[name])
        assert str(keys.get(name)) == answer, f"{name} was not created: {answer}"
        assert known is None or known.key == keys[name], f"{name} has another key than before"
        self.model.segments.setdefault(name, Segment(name, keys[name]))

    def control_refusals(self) -> list[str]:
        """Return for what reasons nothing may change now; an older `control` does not know each token."""
        return ["frozen", "not-found"] if self.model.own["control"].behind else []

    def made(self) -> list[Segment]:
        """Return the segments that were not there from the beginning: only those are sealed, or soon all would be."""
        return [one for one in self.model.there() if one.name.startswith("new-")]

    @precondition(lambda self: self.made())
    @rule(place=PLACE)
    def seal_a_segment(self, place: int) -> None:
        one = self.made()[place % len(self.made())]
        self.sealed(one, self.sealing(one)())

    def sealing(self, one: Segment) -> Callable[[], str]:
        one.sealing = True
        return partial(self.world.seal, one.name)

    def sealed(self, one: Segment, answer: str) -> None:
        assert answer in ("", UNKNOWN, *self.refusals(one), *self.control_refusals()), answer
        if answer == "":
            sent = self.begun(one, 1, batch=False)
            after = self.world.append(one.name, sent)
            assert after == "sealed" or one.behind, f"{one.name} is sealed, and took more"
            one.answered(sent, after, "sealed", "frozen")

    @rule(guest=st.booleans())
    def change_the_policy(self, guest: bool) -> None:
        if self.world.apply_policy(guest=guest):
            self.model.guest = guest
        else:
            assert self.control_refusals(), "a policy was refused"

    @rule()
    def ask_as_a_guest(self) -> None:
        if not self.model.own["control"].behind:
            assert self.world.guest_may() == self.model.guest

    @rule()
    def issue_a_token(self) -> None:
        answer = self.world.issue()
        if answer.startswith("tlog_"):
            self.model.tokens[answer] = True
        else:
            assert answer in (UNKNOWN, *self.control_refusals()), answer

    @rule(which=PLACE, crash=st.booleans(), data=st.data())
    def revoke_a_token(self, which: int, crash: bool, data: Any) -> None:
        """Once that is answered the token never works again, whatever crashes, and whatever is put back."""
        # Whether there is a token is a matter of time where real processes are at work; what is drawn must not be.
        at = data.draw(self.deaths)
        if not self.model.tokens:
            return
        token = [*self.model.tokens][which % len(self.model.tokens)]
        revoke = partial(self.world.revoke, token)
        self.revoked(token, self.world.crash(at, revoke) if crash else revoke())
        self.use_the_tokens()

    def revoked(self, token: str, answer: str) -> None:
        known = self.model.tokens[token]
        assert answer in ("", UNKNOWN, *self.control_refusals(), *([] if known else ["not-found"])), answer
        if answer == "" or (answer == "not-found" and not self.model.own["control"].behind):
            self.model.tokens[token] = False
        elif answer == UNKNOWN and known:
            self.model.tokens[token] = None

    @rule()
    def use_the_tokens(self) -> None:
        # An older `control` knows tokens that were revoked since.
        if self.model.own["control"].behind:
            return
        for token, known in self.model.tokens.items():
            works = self.world.works(token)
            assert known in (None, works), f"a token that {'' if known else 'never again '}works is answered {works}"
            self.model.tokens[token] = works

    @rule(place=PLACE, first=PLACE, second=PLACE)
    def prove(self, place: int, first: int, second: int) -> None:
        """One head extends another, by the proof of the naive tree."""
        one = self.segment(place)
        sizes = sorted(head.size for head in one.heads if 0 < head.size <= len(one.entries))
        if sizes and not one.behind:
            old, new = sorted((sizes[first % len(sizes)], sizes[second % len(sizes)]))
            leaves = [reference.leaf(one.entries[index]) for index in range(new)]
            assert self.world.proof(one.name, old, new) == reference.proof(old, leaves)

    # What happens

    @rule(place=PLACE, count=st.integers(1, 3), data=st.data())
    def crash_while_logging(self, place: int, count: int, data: Any) -> None:
        one = self.segment(place)
        sent = self.begun(one, count, batch=count > 1)
        answer = self.world.crash(data.draw(self.deaths), partial(self.world.append, one.name, sent))
        one.answered(sent, answer, *self.refusals(one))
        if place % 2:
            self.again(one, sent)

    @rule(place=PLACE, create=st.booleans(), data=st.data())
    def crash_at_other_work(self, place: int, create: bool, data: Any) -> None:
        at, made = data.draw(self.deaths), self.made()
        if create or not made:
            name = f"new-{self.model.next()}"
            self.created(name, self.world.crash(at, partial(self.world.create, name)))
        else:
            one = made[place % len(made)]
            self.sealed(one, self.world.crash(at, self.sealing(one)))

    @rule()
    def start_again(self) -> None:
        """Who has not heard that the answer came sends it again after that."""
        self.world.stop()
        self.world.start()
        for one in self.model.there():
            known = [sent for sent in one.sent if not sent.forgotten and sent.receipts]
            if known:
                self.again(one, known[-1])
        self.use_the_tokens()

    @precondition(lambda self: len(self.backups) < 2)
    @rule()
    def back_up(self) -> None:
        name = f"backup-{len(self.backups)}"
        heads = self.world.backup(name)
        for own in self.model.own.values():
            own.heads.add(open_checkpoint(heads[own.name], own.key))
        shutil.copytree(self.world.anchors, self.world.folder / f"{name}.anchor")
        self.backups.append(name)

    @precondition(lambda self: self.backups and len(self.later) < 3)
    @rule(place=PLACE)
    def put_a_backup_back(self, place: int) -> None:
        """What was signed after it is missed, and nothing more is signed where something is."""
        if place % 3:
            self.log_events(place, 1)
        for token in list(self.model.tokens)[: place % 2]:
            self.revoked(token, self.world.revoke(token))
        self.world.stop()
        self.replace(self.backups[place % len(self.backups)])
        self.world.start()
        self.refuse()

    def refuse(self) -> None:
        """See that the segments that are behind sign nothing."""
        for one in self.model.there():
            if one.behind:
                sent = self.begun(one, 1, batch=False, signed=one.name == SIGNED)
                one.answered(sent, self.append(one, sent), *self.refusals(one))
                assert sent.refused, f"{one.name} is behind, and took more"

    def replace(self, backup: str) -> None:
        for name, one in self.model.own.items():
            one.look(self.world.reserved(name))
        self.later.append(f"later-{len(self.later)}")
        sizes = self.world.put_back(backup, self.later[-1])
        for one in [*self.model.segments.values(), *self.model.own.values()]:
            one.missing = one.name not in sizes
            one.lose(sizes.get(one.name, 0))

    @precondition(lambda self: any(one.behind or one.missing for one in self.all()))
    @rule()
    def bring_it_back(self) -> None:
        """From the later copies all comes back, and everything goes on."""
        self.world.stop()
        self.world.bring_back(self.later)
        for one in self.all():
            one.regain()
        self.world.start()
        self.use_the_tokens()

    def all(self) -> list[Segment]:
        return [*self.model.segments.values(), *self.model.own.values()]

    @precondition(lambda self: not any(one.behind or one.missing for one in self.all()))
    @rule(place=PLACE)
    def lose_an_anchor(self, place: int) -> None:
        """Without it nothing is signed, until somebody says that this is the latest."""
        one = self.segment(place)
        self.world.stop()
        assert "is missing" in self.world.lose_anchor(one.name)
        self.world.accept(one.name)
        self.world.start()


class DirectMachine(Moves):
    """The moves of a log within this process."""

    # To log events takes some 60 operations, half of which open the segment; other moves take more.
    deaths = st.one_of(st.integers(-65, -25), st.integers(-130, 220))

    @initialize()
    def lay(self) -> None:
        self.begin(Direct())

    @rule(minutes=st.integers(-90, 90))
    def set_the_clock(self, minutes: int) -> None:
        self.world.late = minutes * 60_000


class ServedMachine(Moves):
    """The moves of real processes: a server, a witness that is its quorum, a monitor, and clients."""

    world: Served
    deaths = st.integers(0, 40)

    @initialize()
    def lay(self) -> None:
        self.begin(Served())
        self.watched = 0

    def append(self, one: Segment, sent: Sent) -> Answer:
        """Append as one who is patient: a segment that waits for its witness takes entries soon, if it is there."""
        answers: list[Answer] = []

        def answered() -> bool:
            answers.append(self.world.append(one.name, sent))
            return answers[-1] != "unavailable" or self.world.witness is None

        until(answered, f"{one.name} to be confirmed")
        return answers[-1]

    def refusals(self, one: Segment) -> list[str]:
        return super().refusals(one) + (["unavailable"] if self.world.witness is None else [])

    def control_refusals(self) -> list[str]:
        # What is told to `control` soon after a start may have to come again.
        return [*super().control_refusals(), "unavailable"]

    @rule(count=st.integers(1, 3))
    def log_signed_events(self, count: int) -> None:
        one = self.model.segments[SIGNED]
        sent = self.begun(one, count, batch=True, signed=True)
        one.answered(sent, self.append(one, sent), *self.refusals(one))

    @rule(place=PLACE)
    def read_as_a_client(self, place: int) -> None:
        """The client's library verifies each entry that it reads, and that the log never went back."""
        one = self.segment(place)
        if one.behind or self.model.own["access"].behind or self.world.witness is None:
            return
        until(lambda: len(self.world.show(one.name).payloads) == one.size, "payloads to be readable")
        with self.world.log(one.name, "auditor") as log:
            assert list(log.logged()) == [one.entries[index] for index in range(one.size)]
            assert [entry.index for entry in log.entries()] == list(range(one.size))

    @rule(at=st.one_of(st.none(), st.integers(1, 60)))
    def look_as_a_monitor(self, at: int | None) -> None:
        """An honest log is never accused, whatever happened to it and to the monitor, which never goes back."""
        looked = self.world.monitor(at)
        if looked is None:
            return
        accused = [one for one in looked.findings if one["class"] != "complaint"]
        assert not accused, accused
        one = self.model.segments[NAMES[0]]
        assert all(self.watched <= size <= one.size for size in looked.verified)
        self.watched = max([self.watched, *looked.verified])

    @rule()
    def kill_a_worker(self) -> None:
        self.world.kill_worker()

    @rule()
    def kill_or_start_the_witness(self) -> None:
        if self.world.witness is None:
            self.world.start_witness()
        else:
            self.world.kill_witness()

    @precondition(lambda self: self.backups and len(self.later) < 3 and self.world.witness is not None)
    @precondition(lambda self: not any(one.behind or one.missing for one in self.all()))
    @rule(place=PLACE)
    def put_all_back(self, place: int) -> None:
        """With older anchors too: then only the witness knows, and nothing is signed before it was asked."""
        if place % 3:
            self.log_events(place, 1)
        self.world.until_witnessed()
        self.world.stop()
        backup = self.backups[place % len(self.backups)]
        self.replace(backup)
        ids = self.world.ids(self.world.data)
        for name in self.world.watched:
            shutil.copy(self.world.folder / f"{backup}.anchor" / ids[name], self.world.anchors / ids[name])
        self.world.start()
        for one in self.all():
            if one.behind and one.name in self.world.watched:
                one.unsuspecting = True
                until(partial(self.world.is_frozen, one.name), f"{one.name} to be frozen")
        self.refuse()


def move(machine: type[Moves], examples: int, steps: int, seed: int) -> None:
    """Move so many logs so many steps each, as the seed has it."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(seeded(seed)(machine), settings=chosen)


def run(machine: type[Moves], seed: int, seconds: float) -> Tally:
    """Move one log after the other, each by a seed of its own, until the time is used up."""
    wrong, points, end = list[str](), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            move(machine, _AT_ONCE, 60, seed * 1_000_000 + points)
        except Exception as error:
            notes = "\n".join([f"{error}", *getattr(error, "__notes__", [])])
            wrong.append(f"{machine.__name__}, seed {seed * 1_000_000 + points}: {notes}")
        points += _AT_ONCE
    return Tally(points, wrong)


def main(bug: str, name: str, examples: str, steps: str, seed: str) -> None:
    """Plant a bug, in this process and in those of the server, and look for it."""
    planted.BUGS[bug]()
    Served.program = (sys.executable, Path(planted.__file__), bug)
    try:
        move(
            {"DirectMachine": DirectMachine, "ServedMachine": ServedMachine}[name], int(examples), int(steps), int(seed)
        )
    except AssertionError as error:
        sys.exit(f"found: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
