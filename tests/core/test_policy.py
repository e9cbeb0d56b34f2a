from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlog_core.checkpoint import Checkpoint, sign_checkpoint
from tlog_core.cosignature import Subtree, cosign, cosign_subtree
from tlog_core.encoding import encode_base64
from tlog_core.errors import MalformedError, SignatureError
from tlog_core.merkle import EMPTY_ROOT, Hash
from tlog_core.note import (
    COSIGNATURE,
    SUBTREE,
    Note,
    Signature,
    SignerKey,
    VerifierKey,
    key_id,
    sign_note,
    signer_from_seed,
)
from tlog_core.policy import (
    MAX_POLICY_BYTES,
    Group,
    TrustedLog,
    TrustedWitness,
    TrustPolicy,
    open_trusted,
    open_witnessed,
    parse_policy,
    verify_log,
)

LOG = signer_from_seed("example.com/log", bytes(32))
TWIN = signer_from_seed("example.com/log", b"\x01" * 32)
OTHER = signer_from_seed("example.com/other", b"\x02" * 32)
WITNESSES = [signer_from_seed(f"w{n}.example", bytes([n]) * 32, key_type=COSIGNATURE) for n in range(10, 16)]
X1, X2, X3, Y1, Y2, Y3 = (str(witness.verifier) for witness in WITNESSES)
CHECKPOINT = Checkpoint(LOG.name, 7, Hash(b"\x07" * 32))
TEXT = str(CHECKPOINT)
TIME = 1_764_000_000

EXAMPLE = f"""\
# two organisations

log {LOG.verifier} https://log.example/
 log\t{OTHER.verifier}
witness X1 {X1}
witness X2 {X2} https://x2.example/witness
witness X3 {X3}
group X 2 X1 X2 X3
witness Y1 {Y1}
witness Y2 {Y2}
witness Y3 {Y3}
group Y any Y1 Y2 Y3
  # both of them
group both all X Y
quorum both
"""


def policy(text: str) -> TrustPolicy:
    return parse_policy(text.encode("utf-8", "surrogateescape"))


def cosigned(times: Mapping[int, int], signer: SignerKey = LOG, text: str = TEXT) -> Note:
    """Return a note signed by the log, and cosigned by the witness of each number at a time."""
    lines = tuple(cosign(text, time=time, signer=WITNESSES[number]) for number, time in times.items())
    return Note(text, sign_note(text, signer).signatures + lines)


def test_the_example_is_read() -> None:
    read = policy(EXAMPLE)
    assert read.logs == (TrustedLog(LOG.verifier, "https://log.example/"), TrustedLog(OTHER.verifier))
    assert [witness.name for witness in read.witnesses] == ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    assert read.witnesses[1] == TrustedWitness("X2", WITNESSES[1].verifier, "https://x2.example/witness")
    assert read.groups == (
        Group("X", 2, ("X1", "X2", "X3")),
        Group("Y", 1, ("Y1", "Y2", "Y3")),
        Group("both", 2, ("X", "Y")),
    )
    assert read.quorum == "both"
    assert parse_policy(bytes(read)) == read


def test_who_asks_for_no_witnesses_says_so() -> None:
    for text in ("quorum none\n", "\tquorum \t none  \n\n#", f"log {LOG.verifier}\nquorum none\n"):
        assert policy(text if text.endswith("\n") else text + "\n").quorum is None


def test_a_name_is_bytes_and_may_be_any_word() -> None:
    read = policy(
        f"witness \udcff {X1}\nwitness all {X2}\nwitness 1 {X3}\ngroup \u212a 2 \udcff all 1\nquorum \u212a\n"
    )
    assert [witness.name for witness in read.witnesses] == ["\udcff", "all", "1"]
    assert parse_policy(bytes(read)) == read
    with pytest.raises(MalformedError, match="no witness or group K above"):
        policy(f"witness \u212a {X1}\nquorum K\n")


def test_32_logs_32_witnesses_and_32_groups_are_read() -> None:
    logs = [signer_from_seed(f"log{n}.example", bytes([n, 1] * 16)).verifier for n in range(32)]
    keys = [signer_from_seed(f"w{n}", bytes([n, 2] * 16), key_type=COSIGNATURE).verifier for n in range(32)]
    lines = [f"log {key}" for key in logs] + [f"witness w{n} {key}" for n, key in enumerate(keys)]
    lines += ["group g0 1 w0"] + [f"group g{n} all g{n - 1} w{n}" for n in range(1, 32)]
    read = policy("\n".join([*lines, "quorum g31", ""]))
    times = {f"w{n}": 100 + n for n in range(32)}
    assert read.quorum_time(times) == 100
    for name in times:
        assert read.quorum_time({other: time for other, time in times.items() if other != name}) is None


WITH_X1 = f"witness X1 {X1}\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "quorum none",
        "quorum none\n# cut",
        "quorum none\nquorum none\n",
        "quorum\n",
        "quorum none none\n",
        "quorum X1\n",
        "quorum X1\n" + WITH_X1,
        "Quorum none\n",
        "quorum none # no comment here\n",
        "quorum\u00a0none\n",
        "quorum none\r\n",
        "quorum none\x00\n",
        "quorum none\x7f\n",
        "quorum none\x0b\n",
        "log\nquorum none\n",
        f"log {LOG.verifier} https://log.example/ more\nquorum none\n",
        f"log {X1}\nquorum none\n",
        f"log {LOG.verifier}\nlog {LOG.verifier}\nquorum none\n",
        f"log {LOG.verifier}\nlog {VerifierKey('other', 1, LOG.verifier.public)}\nquorum none\n",
        "log example.com/log\nquorum none\n",
        f"log {LOG.verifier}x\nquorum none\n",
        f"log \udcff{LOG.verifier}\nquorum none\n",
        "witness X1\nquorum none\n",
        f"witness {X1}\nquorum none\n",
        f"witness X1 {X1} https://x1.example/ more\nquorum none\n",
        f"witness X1 {LOG.verifier}\nquorum none\n",
        f"log {LOG.verifier}\nwitness X1 {VerifierKey(LOG.name, COSIGNATURE, LOG.verifier.public)}\nquorum none\n",
        f"log {LOG.verifier}\nwitness X1 {VerifierKey('w', COSIGNATURE, LOG.verifier.public)}\nquorum none\n",
        WITH_X1 + f"log {VerifierKey('other', 1, WITNESSES[0].verifier.public)}\nquorum none\n",
        f"log {VerifierKey('x' * 256, 1, LOG.verifier.public)}\nquorum none\n",
        f"log {VerifierKey('ä' * 128, 1, LOG.verifier.public)}\nquorum none\n",
        f"witness none {X1}\nquorum none\n",
        WITH_X1 + f"witness X1 {X2}\nquorum none\n",
        WITH_X1 + f"witness X2 {X1}\nquorum none\n",
        WITH_X1 + f"witness X2 {VerifierKey('other', COSIGNATURE, WITNESSES[0].verifier.public)}\nquorum none\n",
        WITH_X1 + "group\nquorum none\n",
        WITH_X1 + "group X\nquorum none\n",
        WITH_X1 + "group X any\nquorum none\n",
        WITH_X1 + "group X 0 X1\nquorum none\n",
        WITH_X1 + "group X 2 X1\nquorum none\n",
        WITH_X1 + "group X 01 X1\nquorum none\n",
        WITH_X1 + "group X +1 X1\nquorum none\n",
        WITH_X1 + "group X \u0661 X1\nquorum none\n",
        WITH_X1 + "group X All X1\nquorum none\n",
        WITH_X1 + "group X any X1 X1\nquorum none\n",
        WITH_X1 + "group X any X1\ngroup Y any X1\nquorum none\n",
        WITH_X1 + "group X any X1 none\nquorum none\n",
        WITH_X1 + "group X any X1 X\nquorum none\n",
        WITH_X1 + "group X1 any X1\nquorum none\n",
        WITH_X1 + "group none any X1\nquorum none\n",
        "group X any X1\n" + WITH_X1 + "quorum none\n",
        WITH_X1 + "quorum x1\n",
        "witnes X1\nquorum none\n",
        "\ufeffquorum none\n",
    ],
)
def test_a_policy_in_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        policy(text)


def test_an_origin_has_up_to_255_bytes() -> None:
    longest = VerifierKey("\u00e4" * 127 + "x", 1, LOG.verifier.public)
    assert policy(f"log {longest}\nquorum none\n").logs == (TrustedLog(longest),)


def test_whose_key_it_is_already_is_said() -> None:
    own = VerifierKey("w", COSIGNATURE, LOG.verifier.public)
    with pytest.raises(MalformedError, match=r"^line 2: this key stands above already, as that of a log$"):
        policy(f"log {LOG.verifier}\nwitness X1 {own}\nquorum X1\n")


def test_the_error_names_the_line() -> None:
    with pytest.raises(MalformedError, match=r"^line 3: no witness or group X above$"):
        policy("# why\n\nquorum X\n")


def test_weak_keys_are_refused() -> None:
    for point in (bytes(32), b"\x01" + bytes(31), b"\xff" * 32):
        identity = key_id("weak", 1, point).hex()
        with pytest.raises(MalformedError, match="weak"):
            policy(f"log weak+{identity}+{encode_base64(bytes([1]) + point)}\nquorum none\n")


def test_a_policy_larger_than_its_limit_is_refused() -> None:
    text = "quorum none\n"
    full = text + "#" + " " * (MAX_POLICY_BYTES - len(text) - 2) + "\n"
    assert policy(full).quorum is None
    with pytest.raises(MalformedError, match="at most"):
        policy(full + "\n")


# The quorum, against an evaluator that follows the words of the specification.


def naive(read: TrustPolicy, name: str, present: frozenset[str]) -> bool:
    group = next((group for group in read.groups if group.name == name), None)
    if group is None:
        return name in present
    return sum(naive(read, member, present) for member in group.members) >= group.threshold


@st.composite
def policies(draw: st.DrawFn) -> TrustPolicy:
    """Draw a policy over six witnesses, each of them and each group a member of one group at most."""
    free = [f"w{number}" for number in range(6)]
    groups = list[Group]()
    for number in range(draw(st.integers(0, 4))):
        if not free:
            break
        members = tuple(draw(st.lists(st.sampled_from(free), min_size=1, unique=True)))
        groups.append(Group(f"g{number}", draw(st.integers(1, len(members))), members))
        free = [name for name in free if name not in members] + [f"g{number}"]
    witnesses = tuple(TrustedWitness(f"w{n}", witness.verifier) for n, witness in enumerate(WITNESSES))
    names = [witness.name for witness in witnesses] + [group.name for group in groups]
    return TrustPolicy((TrustedLog(LOG.verifier),), witnesses, tuple(groups), draw(st.sampled_from(names)))


@given(policies(), st.dictionaries(st.sampled_from([f"w{n}" for n in range(6)]), st.integers(0, 5)))
def test_the_quorum_is_that_of_the_naive_evaluator_at_every_time(drawn: TrustPolicy, times: dict[str, int]) -> None:
    read = parse_policy(bytes(drawn))
    assert read == drawn
    assert read.quorum is not None
    found = read.quorum_time(times)
    for time in range(7):
        present = frozenset(name for name, when in times.items() if when >= time)
        assert naive(read, read.quorum, present) == (found is not None and time <= found)


def test_every_subset_of_witnesses_opens_a_checkpoint_or_not_as_the_policy_says() -> None:
    read = policy(EXAMPLE)
    for count in range(7):
        for numbers in combinations(range(6), count):
            raw = bytes(cosigned(dict.fromkeys(numbers, TIME)))
            enough = len([n for n in numbers if n < 3]) >= 2 and any(n >= 3 for n in numbers)
            if enough:
                assert open_witnessed(raw, read).checkpoint == CHECKPOINT
            else:
                with pytest.raises(SignatureError, match="not the quorum both"):
                    open_witnessed(raw, read)


def test_who_cosigned_and_when_is_told() -> None:
    opened = open_witnessed(bytes(cosigned({0: TIME, 1: TIME + 30, 2: TIME + 20, 4: TIME + 10})), policy(EXAMPLE))
    assert opened.cosigned == (("X1", TIME), ("X2", TIME + 30), ("X3", TIME + 20), ("Y2", TIME + 10))
    assert opened.time == TIME + 10


def test_without_a_quorum_the_log_is_enough_and_witnesses_are_told_all_the_same() -> None:
    read = policy(f"log {LOG.verifier}\nwitness X1 {X1}\nquorum none\n")
    assert open_witnessed(bytes(cosigned({})), read).cosigned == ()
    opened = open_witnessed(bytes(cosigned({0: TIME, 1: TIME})), read)
    assert (opened.checkpoint, opened.cosigned, opened.time) == (CHECKPOINT, (("X1", TIME),), None)


def test_only_a_log_of_the_policy_is_believed() -> None:
    read = policy(f"log {OTHER.verifier}\nlog {TWIN.verifier}\nwitness X1 {X1}\nquorum X1\n")
    with pytest.raises(SignatureError, match=r"^not signed by example.com/log$"):
        open_witnessed(bytes(cosigned({0: TIME})), read)
    with pytest.raises(SignatureError, match=r"^not signed by example.com/log$"):
        open_witnessed(bytes(cosigned({0: TIME}, OTHER)), read)
    with pytest.raises(SignatureError, match=r"has no log example\.com"):
        open_witnessed(bytes(cosigned({0: TIME})), policy(f"witness X1 {X1}\nquorum X1\n"))


def test_a_log_may_have_two_keys_and_sign_with_either_or_both() -> None:
    read = policy(f"log {LOG.verifier}\nlog {TWIN.verifier}\nquorum none\n")
    for signers in ([LOG], [TWIN], [LOG, TWIN]):
        verify_log(sign_note(TEXT, *signers), read)
    forged = Signature(TWIN.name, TWIN.verifier.id, bytes(64))
    with pytest.raises(SignatureError, match="wrong signature"):
        verify_log(Note(TEXT, (*sign_note(TEXT, LOG).signatures, forged)), read)


def test_a_wrong_line_of_a_listed_witness_is_refused_and_one_of_a_stranger_is_not() -> None:
    good = cosigned({0: TIME})
    forged = Signature(WITNESSES[1].name, WITNESSES[1].verifier.id, bytes(72))
    raw = bytes(Note(TEXT, (*good.signatures, forged)))
    assert open_witnessed(raw, policy(f"log {LOG.verifier}\nwitness X1 {X1}\nquorum X1\n")).time == TIME
    with pytest.raises(SignatureError, match="wrong signature by w11"):
        open_witnessed(raw, policy(f"log {LOG.verifier}\nwitness X1 {X1}\nwitness X2 {X2}\nquorum X1\n"))


def test_no_key_counts_twice() -> None:
    good = cosigned({0: TIME, 1: TIME})
    read = policy(f"log {LOG.verifier}\nwitness X1 {X1}\nwitness X2 {X2}\ngroup X all X1 X2\nquorum X\n")
    with pytest.raises(MalformedError, match="two signature lines"):
        open_witnessed(bytes(Note(TEXT, (*good.signatures[:2], good.signatures[1]))), read)


def test_a_checkpoint_must_be_one_that_a_tree_has() -> None:
    read = policy(f"log {LOG.verifier}\nquorum none\n")
    empty = Checkpoint(LOG.name, 0, EMPTY_ROOT)
    assert open_witnessed(bytes(sign_checkpoint(empty, LOG)), read).checkpoint == empty
    for text in (str(Checkpoint(LOG.name, 0, Hash(bytes(32)))), TEXT + "extension\n", "a\n"):
        with pytest.raises(MalformedError):
            open_witnessed(bytes(sign_note(text, LOG)), read)


def test_a_key_opens_a_checkpoint_without_witnesses_and_a_policy_by_its_quorum() -> None:
    raw = bytes(cosigned({0: TIME}))
    assert open_trusted(raw, LOG.verifier) == CHECKPOINT
    assert open_trusted(raw, policy(f"log {LOG.verifier}\nwitness X1 {X1}\nquorum X1\n")) == CHECKPOINT
    with pytest.raises(SignatureError):
        open_trusted(raw, policy(f"log {LOG.verifier}\nwitness X2 {X2}\nquorum X2\n"))


def test_a_witness_of_ml_dsa_44_counts_and_what_it_says_of_a_subtree_does_not() -> None:
    signer = signer_from_seed("pq.example", bytes(32), key_type=SUBTREE)
    log = signer_from_seed("log.example", bytes(32))
    checkpoint = Checkpoint(log.name, 7, Hash(bytes(32)))
    note = sign_checkpoint(checkpoint, log)
    read = parse_policy(f"log {log.verifier}\nwitness pq {signer.verifier}\nquorum pq\n".encode())
    timed = cosign(note.text, time=1_764_000_000, signer=signer)
    cosigned = Note(note.text, (*note.signatures, timed))
    assert open_witnessed(bytes(cosigned), read).time == 1_764_000_000
    assert (read.times(cosigned), read.times(note)) == ({"pq": 1_764_000_000}, {})
    whole = cosign_subtree(Subtree(log.name, 0, 7, checkpoint.root), signer)
    with pytest.raises(SignatureError, match="not the quorum"):
        open_witnessed(bytes(Note(note.text, (*note.signatures, whole))), read)
    # It spoils nothing where no quorum is asked for, unless it is wrong.
    free = replace(read, quorum=None)
    assert open_witnessed(bytes(Note(note.text, (*note.signatures, whole))), free).cosigned == ()
    wrong = replace(whole, blob=bytes(8) + timed.blob[8:])
    with pytest.raises(SignatureError, match="wrong signature"):
        open_witnessed(bytes(Note(note.text, (*note.signatures, wrong))), free)
