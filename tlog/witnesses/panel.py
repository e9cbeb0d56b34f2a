"""The witnesses that a log asks, as a C2SP tlog-policy says."""

from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tlog.errors import ConfigError
from tlog_client.credential import is_private
from tlog_core.errors import MalformedError
from tlog_core.policy import TrustedLog, TrustedWitness, TrustPolicy, parse_policy

MAX_WITNESSES: Final = 32
"""How many witnesses a log asks at most: a note has 100 signatures at most, and each witness costs threads."""


def read_panel(path: Path) -> TrustPolicy:
    """Return the policy in a file that names the witnesses to ask and their quorum; ConfigError, which says why not."""
    try:
        policy = parse_policy(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {(error.strerror or '').lower()}") from None
    except MalformedError as error:
        raise ConfigError(f"{path}: {error}") from None
    if policy.logs:
        raise ConfigError(f"{path} has a line log; leave it out, the server has its witnesses cosign all its segments")
    if policy.quorum is None:
        raise ConfigError(f"{path} has quorum none; name the witness or the group that must have cosigned")
    if len(policy.witnesses) > MAX_WITNESSES:
        raise ConfigError(f"{path} has {len(policy.witnesses)} witnesses, and {MAX_WITNESSES} are the most")
    for witness in policy.witnesses:
        if not witness.name.isprintable() or not _is_prefix(witness.url):
            raise ConfigError(
                f"{path}: witness {witness.name!a} needs a printable name, and after its key the URL to which "
                "checkpoints are submitted, such as https://witness.example/w1"
            )
        if not is_private(witness.url):
            raise ConfigError(
                f"{path}: witness {witness.name} is asked over http, and whoever is on the way could answer that a "
                "segment is a copy, which stops it for good; give an https URL, or one of this machine itself"
            )
    return policy


def trust_in(panel: TrustPolicy | None, logs: tuple[TrustedLog, ...] = ()) -> TrustPolicy:
    """Return the trust policy of who believes these logs, and demands the quorum of the panel, if there is one."""
    if panel is None:
        return TrustPolicy(logs, (), (), None)
    # Where witnesses are asked is nothing to who verifies, and nobody else's business.
    return replace(panel, logs=logs, witnesses=tuple(replace(one, url="") for one in panel.witnesses))


def submission_url(witness: TrustedWitness) -> str:
    """Return where checkpoints are submitted to a witness."""
    return f"{witness.url.rstrip('/')}/add-checkpoint"


def _is_prefix(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = (
        url.isascii() and url.isprintable() and port != 0 and not (parts.query or parts.fragment or "@" in parts.netloc)
    )
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname)
