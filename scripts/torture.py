"""Faults of every class against the real server, and what they find: the long form of what the tests do for a moment.

Each class tries points until its share of the time is used up. What it tries is drawn by the seed; in what order the
server did what it did, its own timing decides too. Ends with status 1 if anything is wrong. Run it with
scripts/torture.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

import conforming
import faulting
import flips
import flips_served
import hostile
import limits
import machine
import mending
import power
from tally import Tally

CLASSES: Final[Mapping[str, Callable[[int, float], Tally]]] = MappingProxyType(
    {
        **{f"power loss: {name}": partial(power.run, name) for name in power.RUNS},
        "power loss: again while recovering": power.run_recovering,
        "a fault at a call": faulting.run_one,
        "a fault, and another while recovering": faulting.run_two,
        "a fault while a log begins": faulting.run_beginning,
        "a fault in a backup or a restore": faulting.run_backup,
        "faults in a witness": faulting.run_witness,
        "faults in a check": mending.run_fsck,
        "a fault in a check of a running log": mending.run_served_fsck,
        "a fault in an import": mending.run_import,
        "faults in a start with peers": mending.run_peers,
        "a flipped bit": flips.run,
        "a bit flipped below a server": flips_served.run,
        "hostile requests": hostile.run,
        "the description of the API": conforming.run,
        "10,000 slow connections": partial(limits.tallied, limits.slow_connections),
        "moves of a log, against a model": partial(machine.run, machine.DirectMachine),
        "moves of server and witness, likewise": partial(machine.run, machine.ServedMachine),
        "large batches in 2 GiB": partial(limits.tallied, limits.large_batches),
        "10,000 segments": partial(limits.tallied, limits.many_segments),
    }
)
"""Each takes a seed, and for how many seconds it may go on."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Faults of every class against the real server.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=600.0, help="for all classes together")
    parser.add_argument("--only", default="", help="only classes whose name has this in it")
    options = parser.parse_args()
    chosen = {name: run for name, run in CLASSES.items() if options.only in name}
    if not chosen:
        sys.exit(f"no such class; there are {', '.join(CLASSES)}")
    print(f"{'class':<40} {'points':>7} {'wrong':>6} {'seconds':>8}", flush=True)
    tallies, began = list[Tally](), time.monotonic()
    for name, run in chosen.items():
        since = time.monotonic()
        tallies.append(run(options.seed, options.seconds / len(chosen)))
        _print(name, tallies[-1], time.monotonic() - since)
    total = Tally(sum(one.points for one in tallies), [line for one in tallies for line in one.wrong])
    _print(f"all, seed {options.seed}", total, time.monotonic() - began)
    sys.exit("\n".join(["wrong:", *total.wrong]) if total.wrong else 0)


def _print(name: str, tally: Tally, seconds: float) -> None:
    print(f"{name:<40} {tally.points:>7} {len(tally.wrong):>6} {seconds:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
