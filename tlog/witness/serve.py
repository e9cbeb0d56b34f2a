"""`tlog witness serve`: the witness under granian, in one worker process with threads."""

from pathlib import Path
from typing import Any

from granian.constants import Interfaces
from granian.server import Server

from tlog.clock import now
from tlog.config import WORKER_THREADS
from tlog.files import lock_data
from tlog.listen import STOP_SECONDS, begin_worker, check_free, insist, parse_address
from tlog.logs import make_logger, server_logging
from tlog.store.witness import WitnessStore
from tlog.witness.app import create_app
from tlog.witness.cosigner import Witness
from tlog.witness.folder import Folder
from tlog.witness.log_list import read_keys


def serve(folder: Folder, logs: Path, name: str | None, host: str, port: int) -> None:
    """Run the witness until it is told to stop; raise ConfigError or MalformedError if it cannot run like this."""
    host = parse_address(host)
    lock_data(folder.lock, shared=False)
    check_free(host, port)
    signer = folder.open(name)
    keys = read_keys(logs, signer.name)
    print(signer.verifier, flush=True)  # noqa: T201

    # Files are opened after the fork.
    def load(*_target: Any) -> Any:
        begin_worker()
        witness = Witness(signer, keys, WitnessStore(folder.database), lambda: now() // 1000)
        return create_app(witness, make_logger())

    server = Server(
        "tlog witness",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=1,
        blocking_threads=WORKER_THREADS,
        websockets=False,
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_SECONDS,
        log_dictconfig=server_logging(),
    )
    insist(server)
    server.serve(target_loader=load, wrap_loader=False)
