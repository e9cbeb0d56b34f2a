"""`tlog witness serve`: the witness under granian, in one worker process with threads."""

from pathlib import Path

from flask import Flask

from tlog.clock import now
from tlog.files import lock_data
from tlog.listen import check_free, parse_address, run_workers
from tlog.logs import make_logger
from tlog.store.witness import WitnessStore
from tlog.witness.app import create_app
from tlog.witness.cosigner import Witness
from tlog.witness.folder import Folder
from tlog.witness.log_list import read_keys


def serve(folder: Folder, logs: Path, name: str | None, host: str, port: int) -> None:
    """Run the witness until it is told to stop; raise ConfigError or MalformedError if it cannot run like this."""
    host = parse_address(host)
    if not folder.key.exists():
        # Before it is named for ever.
        read_keys(logs, name or "")
    lock_data(folder.lock, shared=False)
    check_free(host, port)
    signer = folder.open(name)
    keys = read_keys(logs, signer.name)
    subtree_signer = folder.open_subtree_key(signer.name)
    for one in filter(None, (signer, subtree_signer)):
        print(one.verifier, flush=True)  # noqa: T201

    # Files are opened after the fork.
    def load() -> Flask:
        witness = Witness(signer, subtree_signer, keys, WitnessStore(folder.database), lambda: now() // 1000)
        return create_app(witness, make_logger())

    run_workers("tlog witness", load, host=host, port=port, workers=1)
