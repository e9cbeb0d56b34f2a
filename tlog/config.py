"""Settings and limits, in one place."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tlog.errors import ConfigError

WORKER_THREADS: Final = 128
"""How many requests one worker process has in hand at once: most of them wait, for their bodies or for others."""

TURNS: Final = 20
"""How many of them it works on at once that only read."""

SYNC_TURNS: Final = 48
"""How many that may wait for the disk to sync: the more, the larger the groups that are committed together."""

WORK_TURNS: Final = 12
"""How many of these are at work at once, and do not just wait for the commit of another."""

TURN_SECONDS: Final = 10.0
"""How long one waits to be among them."""

MAX_WAITING: Final = 48
"""How many of them may wait for witnesses; how many for their bodies; and how many for being over a quota."""

MAX_STRANGERS: Final = 16
"""How many forms that everyone may send wait for their bodies: in places of their own, for these may all be taken."""

MAX_FORM_BYTES: Final = 1 << 16
"""How long such a form may be."""

PLACE_SECONDS: Final = 0.2
"""How long one waits for a place to receive a body in: those of a burst are soon there, those who stall are not."""

MAX_LARGE: Final = 10
"""How many requests with more than one payload's worth of body may be in hand: each takes the memory of its body."""

LARGE_TURNS: Final = 2
"""How many of these are worked on at once: each then takes fourteen times its body."""

LARGE_SECONDS: Final = 10.0
"""How long one waits to be among them."""

MAX_DISCARDING: Final = 16
"""How many of them may wait for the rest of a body that is not wanted."""

MAX_PAYLOAD_BYTES: Final = 1 << 20
MAX_BATCH_BYTES: Final = 16 << 20
MAX_BATCH_EVENTS: Final = 10_000
MAX_INGEST_BYTES: Final = 20 << 20
"""How long the body of a request to a receiver may be, as sent and as unpacked: what OTLP/HTTP asks for."""

MAX_INGEST_EVENTS: Final = 100_000
"""How many events there may be in it: each takes memory beyond its own bytes."""

MAX_NEW_SEGMENTS: Final = 64
"""How many segments are made for one such request: each takes some thirty milliseconds."""

MAX_COMMIT_EVENTS: Final = 20_000
"""How many events one commit takes in, so that a small request never waits for more than one large one."""

MAX_PAGE: Final = 1_000
DEFAULT_PAGE: Final = 100
MAX_PAGE_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Config:
    """Where the data is, and how many segments a worker keeps open, and for how long in seconds.

    An `unguarded` server asks nobody who they are, and binds to loopback only. The file `witnesses` says whom to ask
    for cosignatures: heads that do not change are cosigned anew every `recosign_seconds`, and a request that wants its
    receipt cosigned waits `cosigned_seconds` at most. The file `peers` names others who may know of later heads. The
    files `monitor_keys` have the keys of monitors whose bulletins are taken. The folder `anchor`, by default beside
    the data folder, is best on another disk. The scrub checks `scrub_rate` entries in a second, or none for 0. With
    less than `reserve` bytes free on the disk nothing more is taken in.
    """

    data: Path
    anchor: Path | None = None
    open_segments: int = 64
    idle_seconds: float = 10.0
    unguarded: bool = False
    witnesses: Path | None = None
    peers: Path | None = None
    monitor_keys: tuple[Path, ...] = ()
    recosign_seconds: float = 600.0
    cosigned_seconds: float = 10.0
    scrub_rate: float = 200.0
    reserve: int = 256 << 20

    @property
    def control(self) -> Path:
        """The database of segments."""
        return self.data / "control.db"

    @property
    def changes(self) -> Path:
        """The file whose lock is held while what `control.db` says of access changes."""
        return self.data / "changes.lock"

    @property
    def generation(self) -> Path:
        """The number that says how often access has changed."""
        return self.data / "generation"

    @property
    def quotas(self) -> Path:
        """What was drawn on quotas lately."""
        return self.data / "quotas"

    @property
    def issuers(self) -> Path:
        """The OIDC issuers whose tokens are taken, if there are any."""
        return self.data / "issuers.toml"

    @property
    def routes(self) -> Path:
        """Which events go into which segments, if it is there."""
        return self.data / "routes.toml"

    @property
    def session_key(self) -> Path:
        """The key under which the cookies of browsers are sealed."""
        return self.data / "session.key"

    @property
    def lock(self) -> Path:
        """The file whose lock says that a server runs on this data."""
        return self.data / "server.lock"

    @property
    def sweeping(self) -> Path:
        """The file whose lock is held by the worker that has idle heads cosigned anew."""
        return self.data / "sweeping.lock"

    @property
    def scrubbing(self) -> Path:
        """The file whose lock is held by the worker that scrubs."""
        return self.data / "scrubbing.lock"

    @property
    def scrubbed(self) -> Path:
        """How far the scrub has come."""
        return self.data / "scrubbed"

    @property
    def sealing(self) -> Path:
        """The file whose lock is held by the worker that looks for what is half sealed."""
        return self.data / "sealing.lock"

    @property
    def search(self) -> Path:
        """The folder of the indexes for searches, which can all be made again."""
        return self.data / "search"

    @property
    def following(self) -> Path:
        """The file whose lock is held by the worker that has the indexes follow their segments."""
        return self.data / "following.lock"

    @property
    def importing(self) -> Path:
        """The folder in which a segment that is brought back is checked, before it is put in its place."""
        return self.data / "importing"

    @property
    def metrics(self) -> Path:
        """The folder in which the workers of one run bring their counters together, where there is none in memory."""
        return self.data / "metrics"

    @property
    def confirmed(self) -> Path:
        """The folder that says which segments the witnesses have confirmed since the server began."""
        return self.data / "confirmed"

    def segment(self, segment_id: str) -> Path:
        """Return the database of the segment of this random ID."""
        return self.data / "segments" / f"{segment_id}.db"

    def asking(self, segment_id: str) -> Path:
        """Return the file whose lock is held while witnesses are asked about the segment."""
        return self.data / "segments" / f"{segment_id}.asking"

    def anchor_of(self, segment_id: str) -> Path:
        """Return the file of the segment's anchor, which is outside the data folder."""
        return (self.anchor or self.data.with_name(f"{self.data.name}.anchor")) / segment_id

    def key(self, segment_id: str) -> Path:
        """Return the file of the segment's signer key."""
        return self.data / "keys" / f"{segment_id}.key"


def from_environment(data: Path | None = None) -> Config:
    """Return the settings of the variables `TLOG_DATA`, unless there is `data`, `TLOG_ANCHOR`, ...; ConfigError."""
    anchor, peers = os.environ.get("TLOG_ANCHOR", ""), os.environ.get("TLOG_PEERS", "")
    witnesses, monitor_keys = os.environ.get("TLOG_WITNESSES", ""), os.environ.get("TLOG_MONITOR_KEYS", "")
    data = (data or Path(os.environ.get("TLOG_DATA", "data"))).absolute()
    try:
        return Config(
            data=data,
            anchor=Path(anchor).absolute() if anchor else None,
            open_segments=int(os.environ.get("TLOG_OPEN_SEGMENTS", "64")),
            idle_seconds=float(os.environ.get("TLOG_IDLE_SECONDS", "10")),
            unguarded=os.environ.get("TLOG_UNGUARDED", "") == "1",
            witnesses=Path(witnesses) if witnesses else None,
            peers=Path(peers) if peers else None,
            monitor_keys=tuple(Path(one) for one in monitor_keys.split(os.pathsep) if one),
            recosign_seconds=float(os.environ.get("TLOG_RECOSIGN_SECONDS", "600")),
            cosigned_seconds=float(os.environ.get("TLOG_COSIGNED_SECONDS", "10")),
            scrub_rate=float(os.environ.get("TLOG_SCRUB_RATE", "200")),
            reserve=int(os.environ.get("TLOG_RESERVE_MIB", "256")) << 20,
        )
    except ValueError as error:
        names = "OPEN_SEGMENTS, IDLE_SECONDS, RECOSIGN_SECONDS, COSIGNED_SECONDS, SCRUB_RATE or RESERVE_MIB"
        raise ConfigError(f"one of TLOG_{names} is not a number: {error}") from None
