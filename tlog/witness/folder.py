"""The folder of a witness: its keys and its database."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from tlog.errors import ConfigError
from tlog.files import exclusive, make_folder, write_durably
from tlog.store.witness import make_database
from tlog_core.cosignature import MAX_NAME_BYTES
from tlog_core.errors import MalformedError
from tlog_core.note import COSIGNATURE, SEED_BYTES, SUBTREE, SignerKey, parse_signer, signer_from_seed


@dataclass(frozen=True, slots=True)
class Folder:
    """Where a witness keeps what is its own."""

    path: Path

    @property
    def key(self) -> Path:
        """The file of its signer key."""
        return self.path / "witness.key"

    @property
    def subtree_key(self) -> Path:
        """The file of its signer key of ML-DSA-44, if it has one."""
        return self.path / "witness-ml-dsa-44.key"

    @property
    def database(self) -> Path:
        """What it has cosigned."""
        return self.path / "witness.db"

    @property
    def lock(self) -> Path:
        """The file whose lock says that a witness runs on this folder."""
        return self.path / "server.lock"

    def open(self, name: str | None) -> SignerKey:
        """Return the key of the witness; in an empty folder make key and database first, of the witness of this name.

        Raises ConfigError if the folder belongs to a witness of another name, or a part of it is gone; MalformedError
        for what no key may be named.
        """
        make_folder(self.path)
        # One process at a time: SQLite does not wait when two make the same database.
        with exclusive(self.path / "making.lock"):
            signer = self._read_key() if self.key.exists() or self.database.exists() else self._make(name)
        if name not in (None, signer.name):
            raise ConfigError(
                f"this witness is named {signer.name} for ever; leave out --name, or take an empty folder"
            )
        return signer

    def open_subtree_key(self, name: str) -> SignerKey | None:
        """Return the key of ML-DSA-44 of the witness of this name, None if it has none; raise ConfigError."""
        if not self.subtree_key.exists():
            return None
        signer = _read_signer(self.subtree_key)
        if (signer.name, signer.verifier.type) != (name, SUBTREE):
            raise ConfigError(f"{self.subtree_key} is not the key of ML-DSA-44 of {name}; put the right one back")
        return signer

    def make_subtree_key(self, name: str) -> None:
        """Make a key of ML-DSA-44 for the witness of this name, if it has none; raise MalformedError."""
        with exclusive(self.path / "making.lock"):
            if not self.subtree_key.exists():
                if len(name.encode()) > MAX_NAME_BYTES:
                    raise MalformedError(f"ML-DSA-44 signs in names of at most {MAX_NAME_BYTES} bytes")
                signer = signer_from_seed(name, secrets.token_bytes(SEED_BYTES), key_type=SUBTREE)
                write_durably(self.subtree_key, signer.format().encode())

    def _make(self, name: str | None) -> SignerKey:
        if name is None:
            raise ConfigError(
                f"there is no witness in {self.path} yet; name it with --name, such as witness.example/w1"
            )
        signer = signer_from_seed(name, secrets.token_bytes(SEED_BYTES), key_type=COSIGNATURE)
        # The key comes last: nothing is ever signed by one whose database is gone.
        make_database(self.database, str(signer.verifier))
        write_durably(self.key, signer.format().encode())
        return signer

    def _read_key(self) -> SignerKey:
        for path in (self.key, self.database):
            if not path.exists():
                raise ConfigError(
                    f"{path} is gone; without it this witness cannot go on, begin another in a new folder"
                )
        signer = _read_signer(self.key)
        make_database(self.database, str(signer.verifier))
        return signer


def _read_signer(path: Path) -> SignerKey:
    try:
        return parse_signer(path.read_text("utf-8"))
    except (MalformedError, UnicodeDecodeError):
        raise ConfigError(f"{path} is no signer key; put the right one back") from None
