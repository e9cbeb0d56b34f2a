"""One segment of a log, as seen by a client that trusts nothing but the key it was given."""

import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlencode

import requests

from tlog_client.answers import IndexedEntry, OpenedEntry, parse_consistency, parse_found
from tlog_client.credential import Bearer
from tlog_client.errors import OutcomeUnknownError, RefusedError, StateError, TransientError
from tlog_client.events import (
    NDJSON_TYPE,
    canonical_event,
    join_batch,
    verify_opaque_type,
    verify_payload_length,
)
from tlog_client.heads import Heads, verify_no_rollback
from tlog_client.search import Found, Search
from tlog_client.sequences import SequenceFile, Turn
from tlog_client.signing import MAX_ENVELOPE_BYTES, SIGNED_TYPE, SignedBatch, sign_batch
from tlog_client.snapshot import MAX_PAGE_BYTES, MAX_PROOF_BYTES, Snapshot
from tlog_client.state import SignedCheckpoint, StateFile, default_folder, open_signed
from tlog_client.tiles import consistency_in_tiles
from tlog_client.transport import Backoff, Transport, new_session
from tlog_client.watching import FollowedFile, follow
from tlog_core.checkpoint import Checkpoint
from tlog_core.commitment import OPENING_BYTES, Opening
from tlog_core.encoding import MAX_INTEGER
from tlog_core.errors import FetchError, MalformedError, ProofError
from tlog_core.merkle import Hash, fold
from tlog_core.note import ED25519, MAX_NOTE_BYTES, SignerKey, VerifierKey, parse_verifier
from tlog_core.proof import root_before
from tlog_core.receipt import (
    JSON_TYPE,
    BatchReceipt,
    Receipt,
    mint_receipts,
    parse_batch_receipt,
    parse_receipt,
    verify_receipt,
)
from tlog_core.writer import check_writer_key, parse_writer_signer

MAX_RECEIPT_BYTES: Final = 4 << 20

_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")


class Log:
    """One segment of a log: append to it, read it, follow it. All that is returned was verified against `key`.

    The newest verified checkpoint is kept in the folder `state`, and each one seen must be of the same history. Methods
    may be called from several threads, and several processes may share a folder. Every method raises, besides what
    it names, FetchError if there is no answer, RefusedError if the log refuses, StateError if the folder is damaged;
    MalformedError, SignatureError or ProofError for an answer that does not hold; InconsistencyError, which carries
    both signed notes, if the log went back or shows two histories.
    """

    def __init__(
        self,
        url: str,
        key: VerifierKey | str,
        *,
        state: Path | str | None = None,
        token: str | Path | None = None,
        signer: SignerKey | str | None = None,
        writer_keys: Sequence[VerifierKey] = (),
        session: requests.Session | None = None,
        timeout: float = 30.0,
        backoff: Backoff | None = None,
        cosigned: bool = False,
    ) -> None:
        """Pin a segment: `url` is its prefix, such as `https://log.example/segments/payments`, `key` its verifier key.

        `state` is `$XDG_STATE_HOME/tlog` or `~/.local/state/tlog` unless given. `token` is the credential to show, or
        the file that holds it, which is read each time. A `session` brings proxies, certificates or credentials of
        other kinds; threads share it, and it stays the caller's to close. `timeout` is the longest silence to bear, in
        seconds.

        With a `signer`, or its text form, what is appended is signed in the name of that key, which the operator has
        registered; one event or batch at a time, for all that share the folder `state`. Entries in the name of one of
        `writer_keys` are believed only if that key signed them. Raises MalformedError for what is no URL or no key.

        With `cosigned` the log is asked to have what it logs cosigned by its witnesses before it answers. It waits for
        them for a few seconds only: a receipt that came without can be upgraded later (`upgrade`).
        """
        self.key = parse_verifier(key.strip()) if isinstance(key, str) else key
        if self.key.type != ED25519:
            raise MalformedError(f"the key of {self.key.name} is a witness's, not a log's")
        self._session = new_session() if session is None else session
        if token is not None and session is not None:
            raise MalformedError("a session has its own credentials; give a token or a session")
        if token is not None:
            self._session.auth = Bearer(token)
        self._owns_session = session is None
        self._transport = Transport(
            url, session=self._session, timeout=timeout, backoff=Backoff() if backoff is None else backoff
        )
        self._signer = parse_writer_signer(signer.strip()) if isinstance(signer, str) else signer
        self._writer_keys = tuple(writer_keys)
        for one in (*self._writer_keys, *([] if self._signer is None else [self._signer.verifier])):
            check_writer_key(one)
        self._entries = "entries?cosigned=true" if cosigned else "entries"
        folder = default_folder(os.environ) if state is None else Path(state)
        self._folder = folder
        self._heads = Heads(self.key, StateFile(folder, self.key), self._fetch_consistency)

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The log can be used again and then opens new ones."""
        if self._owns_session:
            self._session.close()

    # Writing

    def append(self, event: Any, *, idempotency_key: str | None = None) -> Receipt:
        """Log one event, any JSON value of at most 1 MiB, and return its receipt.

        The request is repeated, under one key, while the log is out of reach or overloaded; that never logs the event
        twice. A program that wants to be as safe across its own crashes gives a key of its own, 1 to 255 visible
        ASCII characters. When all attempts failed it raises OutcomeUnknownError, or, if the event is certainly not
        logged, TransientError.
        """
        return self._append(canonical_event(event), JSON_TYPE, idempotency_key)

    def append_payload(self, payload: bytes, payload_type: str, *, idempotency_key: str | None = None) -> Receipt:
        """Log opaque bytes, 1 byte to 1 MiB, of a media type other than JSON; otherwise as `append`."""
        verify_opaque_type(payload_type)
        verify_payload_length(payload)
        return self._append(payload, payload_type, idempotency_key)

    def append_many(self, events: Iterable[Any], *, idempotency_key: str | None = None) -> list[Receipt]:
        """Log events side by side, all or none of them, and return their receipts in order; otherwise as `append`.

        They are one request, never split: MalformedError for more than 10,000 events or 16 MiB. A `Writer` has no
        such limit.
        """
        payloads = [_canonical(event, place) for place, event in enumerate(events, 1)]
        return self.append_canonical(payloads, idempotency_key=idempotency_key) if payloads else []

    def append_canonical(self, payloads: Sequence[bytes], *, idempotency_key: str | None = None) -> list[Receipt]:
        """As `append_many`, of events that are in RFC 8785 form already (`canonical_event`); at least one."""
        return self.send_canonical(payloads, idempotency_key=idempotency_key)(0)

    def send_canonical(
        self, payloads: Sequence[bytes], *, idempotency_key: str | None = None
    ) -> Callable[[int], list[Receipt]]:
        """As `append_canonical`, but return, once the log has answered, what verifies that and gives the receipts.

        So what comes next can be sent before. It takes the least index that the first event can have, 0 if none is
        known: what was answered before this was sent has taken those below.
        """
        if self._signer is not None:
            signed = self._append_signed(payloads, JSON_TYPE, idempotency_key, self._signer)
            return lambda _least: signed
        body = join_batch(payloads)
        known = self._least_index(idempotency_key)
        answer = self._post(body, NDJSON_TYPE, idempotency_key)

        def receive(least: int) -> list[Receipt]:
            batch = parse_batch_receipt(answer)
            receipts = mint_receipts(batch, payloads=payloads, key=self.key, writer_keys=self._writer_keys)
            self._accept_batch(batch, max(known, least))
            return receipts

        return receive

    @property
    def overhead(self) -> int:
        """How many bytes of a request an event of JSON takes at most beside itself."""
        return 1 if self._signer is None else MAX_ENVELOPE_BYTES

    # Reading

    def verified(self) -> SignedCheckpoint | None:
        """Return the newest checkpoint verified so far, from disk; None if there was none yet."""
        return self._heads.newest()

    def checkpoint(self) -> Checkpoint:
        """Fetch the log's latest checkpoint, check that it extends all that was verified before, and return it."""
        return self.signed_checkpoint().checkpoint

    def signed_checkpoint(self) -> SignedCheckpoint:
        """As `checkpoint`, with the signed note as received, and so with whatever cosignatures it has."""
        # Read before the request: what another thread verifies meanwhile may be newer than the answer.
        known = self._heads.newest()
        seen = open_signed(self._transport.get("checkpoint", limit=MAX_NOTE_BYTES), self.key)
        verify_no_rollback(known, seen)
        self._heads.accept(seen)
        return seen

    def cosigned_checkpoint(self) -> SignedCheckpoint:
        """Fetch the newest checkpoint that the log's witnesses have cosigned, and check that it is of the one history.

        Who the witnesses are is not judged here: open its note under a trust policy (`open_witnessed`). RefusedError
        if there is none.
        """
        seen = open_signed(self._transport.get("checkpoint/cosigned", limit=MAX_NOTE_BYTES), self.key)
        self._heads.accept(seen)
        return seen

    def upgrade(self, receipt: Receipt) -> Receipt:
        """Return a receipt of the same entry under the newest cosigned checkpoint (`cosigned_checkpoint`).

        FetchError if the log's witnesses have not cosigned the entry yet.
        """
        verify_receipt(receipt, key=self.key, writer_keys=self._writer_keys)
        signed = self.cosigned_checkpoint()
        if receipt.index >= signed.checkpoint.size:
            raise FetchError(
                f"the witnesses of the log have cosigned {signed.checkpoint.size} entries, and not yet entry "
                f"{receipt.index}; try again later"
            )
        proof = self._snapshot(signed).fetch_inclusion(receipt.index)
        upgraded = replace(receipt, checkpoint=signed.note, proof=proof)
        verify_receipt(upgraded, key=self.key, writer_keys=self._writer_keys)
        return upgraded

    def consistency(self, older: bytes) -> Checkpoint:
        """Check that the log's latest checkpoint extends an older one, given as its signed note; return the latest."""
        known = open_signed(older, self.key)
        seen = self.signed_checkpoint()
        verify_no_rollback(known, seen)
        self._heads.verify_one_history(known, seen)
        return seen.checkpoint

    def entry(self, index: int) -> OpenedEntry:
        """Return the entry at `index` with its payload, under the newest verified checkpoint that covers it."""
        signed = self._covering(index)
        try:
            opened, _ = self._snapshot(signed).prove(index)
        except RefusedError as error:
            # By what was verified it must have the entry.
            if error.status == HTTPStatus.NOT_FOUND:
                with suppress(FetchError):
                    self.checkpoint()
            raise
        return opened

    def prove(self, index: int) -> Receipt:
        """Return a fresh receipt of the entry at `index` under the log's latest checkpoint."""
        _, receipt = self._snapshot(self.signed_checkpoint()).prove(index)
        return receipt

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[OpenedEntry]:
        """Yield the entries [start, stop) with their payloads; all from `start` on if `stop` is None.

        They are verified against the tiles under the log's latest checkpoint, each before it is yielded; errors come
        while iterating. Four pages of 256 are asked for at once. FetchError if the log has fewer than `stop` entries.
        """
        yield from self._snapshot(self.signed_checkpoint()).entries(start, stop)

    def at(self, signed: SignedCheckpoint) -> Snapshot:
        """Return the log as it was at a checkpoint that `signed_checkpoint` or `cosigned_checkpoint` has returned."""
        return self._snapshot(signed)

    def search(self, **terms: str | int) -> Search:
        """Find entries by `actor`, `action`, `target`, `outcome`, `source`, `since`, `until`, `q`, `start`, `before`.

        All must hold; `spec/search.md` says what each means. A field that ends in `*` is how it begins, times are in
        milliseconds, and `limit` is how many come with a request. What is yielded, the latest first, are the entries
        with their receipts, under the log's latest checkpoints; errors come while iterating, too.
        """
        return Search(partial(self._found, terms))

    def committed(self, start: int = 0, stop: int | None = None) -> Iterator[IndexedEntry]:
        """Yield the entries [start, stop) without payloads, for those who may not read them; otherwise as `entries`.

        Only tiles and entry bundles are read, four at once, and no more are held.
        """
        yield from self._snapshot(self.signed_checkpoint()).committed(start, stop)

    def logged(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield the entries [start, stop) as the bytes that they are; otherwise as `committed`.

        So can be read what is in any C2SP tlog-tiles log, whose entries need not be of our form.
        """
        yield from self._snapshot(self.signed_checkpoint()).logged(start, stop)

    def verify_writers(self, checkpoint: Checkpoint) -> None:
        """Check that every entry up to a verified checkpoint in the name of one of the writers' keys is theirs.

        Each must be signed, and no sequence left out or there twice, from the first entry on. How far this was done is
        kept in the folder `state`, so that only what is new is read.
        """
        if not self._writer_keys:
            return
        file = FollowedFile(self._folder, self.key, self._writer_keys)
        known = file.read()
        if known.size < checkpoint.size:
            file.keep(follow(known, self.committed(known.size, checkpoint.size), file.writers))

    def _append_signed(
        self, payloads: Sequence[bytes], payload_type: str, idempotency_key: str | None, signer: SignerKey
    ) -> list[Receipt]:
        key = _new_key() if idempotency_key is None else _checked_key(idempotency_key)
        openings = tuple(Opening(secrets.token_bytes(OPENING_BYTES)) for _ in payloads)
        with SequenceFile(self._folder, self.key, signer.name).turn() as turn:

            def sign() -> SignedBatch:
                return sign_batch(
                    payloads, payload_type, openings=openings, origin=self.key.name, first=turn.next, signer=signer
                )

            least = self._least_index(idempotency_key)
            batch = parse_batch_receipt(self._send_signed(turn, sign, key))
            receipts = self._mint_signed(batch, payloads, payload_type, signer)
            self._settle(turn, batch, fresh=batch.openings == openings, key_given=idempotency_key is not None)
        self._accept_batch(batch, least)
        return receipts

    def _send_signed(self, turn: Turn, sign: Callable[[], SignedBatch], key: str) -> bytes:
        """Send what `sign` signs from the turn's next sequence on, and once more from the one that the log expects."""
        try:
            return self._post_signed(turn, sign(), key)
        except RefusedError as error:
            if error.expected_sequence is None:
                raise
            try:
                turn.resume(error.expected_sequence)
            except StateError:
                # It may have gone back, which is worth more to know.
                self.checkpoint()
                raise
        return self._post_signed(turn, sign(), key)

    def _post_signed(self, turn: Turn, batch: SignedBatch, key: str) -> bytes:
        body = batch.body()
        # Noted first: whatever becomes of the request, these sequences may be taken.
        turn.send(len(batch.payloads))
        return self._post(body, SIGNED_TYPE, key)

    def _mint_signed(
        self, batch: BatchReceipt, payloads: Sequence[bytes], payload_type: str, signer: SignerKey
    ) -> list[Receipt]:
        if batch.writer != signer.name or not batch.signed:
            raise ProofError(f"the log took the events from {batch.writer}, and not as signed by {signer.name}")
        keys = (signer.verifier, *self._writer_keys)
        return mint_receipts(batch, payloads=payloads, key=self.key, payload_type=payload_type, writer_keys=keys)

    def _settle(self, turn: Turn, batch: BatchReceipt, *, fresh: bool, key_given: bool) -> None:
        following = batch.signed[-1].sequence + 1
        if fresh:
            turn.settle(following)
        elif key_given:
            # Logged by an earlier call under this key: signed by the writer, and for the same events.
            turn.recall(following)
        else:
            raise ProofError("the receipt is for events that were signed before")

    def _accept_batch(self, batch: BatchReceipt, least: int) -> None:
        self._verify_fresh(batch.first_index, least)
        shown = Checkpoint(self.key.name, batch.first_index, fold(batch.left))
        self._heads.accept(open_signed(batch.checkpoint, self.key), shown=shown)

    def _append(self, payload: bytes, payload_type: str, idempotency_key: str | None) -> Receipt:
        if self._signer is not None:
            return self._append_signed([payload], payload_type, idempotency_key, self._signer)[0]
        least = self._least_index(idempotency_key)
        receipt = parse_receipt(self._post(payload, payload_type, idempotency_key))
        if receipt.payload_type != payload_type:
            raise ProofError(f"the receipt is for a payload of type {receipt.payload_type}, not {payload_type}")
        verify_receipt(receipt, key=self.key, payload=payload, writer_keys=self._writer_keys)
        self._verify_fresh(receipt.index, least)
        seen = open_signed(receipt.checkpoint, self.key)
        root = root_before(index=receipt.index, size=seen.checkpoint.size, proof=receipt.proof)
        self._heads.accept(seen, shown=Checkpoint(self.key.name, receipt.index, root))
        return receipt

    def _post(self, body: bytes, content_type: str, idempotency_key: str | None) -> bytes:
        key = _new_key() if idempotency_key is None else _checked_key(idempotency_key)
        try:
            return self._transport.post(
                self._entries, body, content_type=content_type, idempotency_key=key, limit=MAX_RECEIPT_BYTES
            )
        except TransientError as error:
            if not error.reached:
                raise
            raise OutcomeUnknownError(str(error), idempotency_key=key) from error

    def _least_index(self, idempotency_key: str | None) -> int:
        # Under a key of the caller's the events may be old. Under a fresh one they must come after all that was
        # verified before: else a log could answer two equal events with one entry.
        known = self._heads.newest()
        return known.checkpoint.size if known is not None and idempotency_key is None else 0

    def _verify_fresh(self, index: int, least: int) -> None:
        if index < least:
            # A log that went back gives the same indexes again.
            self.checkpoint()
            raise ProofError(f"the receipt is for entry {index}, logged before the events were sent")

    def _verify_still_there(self) -> None:
        """Check, of a log that refused what it must have by what was verified, that it has not gone back since."""
        known = self._heads.newest()
        verify_no_rollback(known, open_signed(self._transport.get("checkpoint", limit=MAX_NOTE_BYTES), self.key))

    def _found(self, terms: Mapping[str, str | int], following: int | None) -> Found:
        asked = {**terms, **({} if following is None else {"before": following})}
        # Read before the request, as in `signed_checkpoint`.
        known = self._heads.newest()
        raw = self._transport.get(f"entries?{urlencode(asked)}", limit=MAX_PAGE_BYTES)
        page = parse_found(raw, before=int(asked.get("before", MAX_INTEGER)))
        seen = open_signed(page.note, self.key)
        if seen.checkpoint.size != page.size:
            raise MalformedError(f"the answer is of {page.size} entries, and its checkpoint of {seen.checkpoint.size}")
        verify_no_rollback(known, seen)
        self._heads.accept(seen)
        snapshot = self._snapshot(seen)
        hits = tuple(snapshot.proven(opened, proof) for opened, proof in page.hits)
        return Found(hits, page.next, page.indexed, page.size)

    def _covering(self, index: int) -> SignedCheckpoint:
        known = self._heads.newest()
        return known if known is not None and index < known.checkpoint.size else self.signed_checkpoint()

    def _snapshot(self, signed: SignedCheckpoint) -> Snapshot:
        return Snapshot(signed, self._transport, self._writer_keys)

    def _fetch_consistency(self, old_size: int, new: Checkpoint) -> Sequence[Hash]:
        try:
            raw = self._transport.get(f"proof/consistency/{old_size}/{new.size}", limit=MAX_PROOF_BYTES)
        except RefusedError:
            # The logs of others have tiles and no such route. Tiles first would not do: writers may not read them.
            try:
                return consistency_in_tiles(old_size, new, self._transport.get)
            except RefusedError:
                self._verify_still_there()
                raise
        return parse_consistency(raw, old_size=old_size, new_size=new.size)


def _canonical(event: Any, place: int) -> bytes:
    try:
        return canonical_event(event)
    except MalformedError as error:
        raise MalformedError(f"event {place}: {error}") from None


def _new_key() -> str:
    return secrets.token_hex(16)


def _checked_key(key: str) -> str:
    if _IDEMPOTENCY_KEY.fullmatch(key) is None:
        raise MalformedError("an idempotency key has 1 to 255 visible ASCII characters")
    return key
