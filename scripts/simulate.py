"""Gossip of many monitors against logs that lie, on a simulated network: how surely and how soon they are found out.

What runs is the real engine, judge and follower; only the network and the clock are not there. The same seeds give the
same figures. Ends with status 1 if one of the claims of spec/gossip.md does not hold. Run it with scripts/simulate.
"""

import argparse
import math
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import psutil
from gossiping import History
from simulation import LOG, Plan, Result, World

from tlog_client.monitor.gossip import FANOUT, ROUND_MILLISECONDS
from tlog_core.checkpoint import Checkpoint, sign_checkpoint
from tlog_core.merkle import leaf_hash

ROUND: Final = ROUND_MILLISECONDS
SIGMAS: Final = 3.0
FORK: Final = 20
"""The first entry in which two histories of one log differ, where they have anything in common."""


@cache
def histories() -> tuple[History, History, History]:
    """Return the history that most are shown, another of nothing but lies, and one that leaves the first at `FORK`."""
    return History(LOG, "a", 200), History(LOG, "b", 200), History(LOG, "c", 200, fork=FORK)


@cache
def busy() -> History:
    """Return an honest history of one entry in 20 seconds."""
    return History(LOG, "a", 4_000, pause=20_000)


@cache
def minted() -> tuple[bytes, ...]:
    """Return heads that the log signed for nothing but to be a burden: each of another size that no tree has."""
    heads = (Checkpoint(LOG.name, 1_000_000 + at, leaf_hash(b"%d" % at)) for at in range(2_000))
    return tuple(bytes(sign_checkpoint(head, LOG)) for head in heads)


# Views: what the log shows the monitor at a place, at a time


def targeted(place: int, _now: int) -> tuple[History, int]:
    honest, lie, _ = histories()
    return (honest if place else lie), 21


def half(place: int, _now: int) -> tuple[History, int]:
    honest, lie, _ = histories()
    return (honest if place % 2 else lie), 21


def skewed(place: int, now: int) -> tuple[History, int]:
    honest, lie, _ = histories()
    size = 10 + 2 * (now // ROUND)
    return (honest, size) if place else (lie, size + 1)


def frozen(place: int, now: int) -> tuple[History, int]:
    return histories()[0], 10 + now // ROUND if place else 10


def late(place: int, now: int) -> tuple[History, int]:
    honest, _, leaves = histories()
    return (honest if place else leaves), min(150, FORK - 10 + now // ROUND)


def growing(_place: int, now: int) -> tuple[History, int]:
    return busy(), min(3_900, 1 + max(0, now) // 20_000)


def apart(one: int, other: int, now: int) -> bool:
    return now < 10 * ROUND and one % 2 != other % 2


def alone(one: int, other: int, _now: int) -> bool:
    return 0 in (one, other)


# What those who collude with the log do beyond silence


def garbage(seeded: random.Random, *_: bytes) -> tuple[bytes, ...]:
    forged = histories()[0].head(9).replace(b"\n9\n", b"\n%d\n" % seeded.getrandbits(40))
    return seeded.randbytes(300), forged, *(seeded.randbytes(50) for _ in range(20))


def flood(seeded: random.Random, *_: bytes) -> tuple[bytes, ...]:
    return tuple(seeded.sample(minted(), 32))


def plague(seeded: random.Random) -> tuple[bytes, ...]:
    return garbage(seeded) if seeded.random() < 0.5 else flood(seeded)[:8]


def pester(seeded: random.Random, _head: bytes) -> tuple[bytes, ...]:
    return plague(seeded)


@dataclass(frozen=True)
class Scenario:
    """A plan, how often it is run, and what must come of it; `chance` is that of a first round that detects."""

    name: str
    plan: Plan
    seeds: int
    expect: str = "detected"
    chance: float | None = None


def colluders(count: int, share: float) -> int:
    """Return how many of the others collude, seen from one."""
    return round(share * (count - 1))


def miss(count: int, share: float, *, hidden: bool = False) -> float:
    """Return the chance that in a round nobody honest meets the one victim; a hidden one is not called."""
    others = count - 1
    honest = others - colluders(count, share)
    drawn = math.comb(others - honest, FANOUT) / math.comb(others, FANOUT)
    return drawn if hidden else drawn * (1 - FANOUT / others) ** honest


def first_round(count: int, share: float, seeds: int, *, hidden: bool = False) -> Scenario:
    plan = Plan(
        count,
        targeted,
        colluders(count, share),
        rounds=1,
        quiet=True,
        stop_at_first=True,
        hidden=frozenset({0} if hidden else ()),
    )
    name = f"first round{', not called' if hidden else ''}, c = {share:g}"
    return Scenario(name, plan, seeds, "formula", 1 - miss(count, share, hidden=hidden))


def first(count: int, share: float, seeds: int) -> Scenario:
    plan = Plan(count, targeted, colluders(count, share), quiet=True, stop_at_first=True)
    return Scenario(f"first detection, c = {share:g}", plan, seeds)


def scenarios(*, quick: bool) -> list[Scenario]:
    """Return what is run; quick, fewer monitors and fewer seeds."""
    few, many, some = (30, 60, 4) if quick else (100, 1_000, 100)
    full = 40 if quick else 100
    at = Plan(few, targeted)
    often = ((0.0, 200), (0.3, 500), (0.6, 1_000), (0.8, 2_000), (0.9, 2_000))
    found = [first_round(full, share, 40 if quick else seeds) for share, seeds in often]
    found += [
        first_round(full, 0.8, 40 if quick else 1_000, hidden=True),
        first_round(many, 0.6, some),
        first(full, 0.6, 40 if quick else 1_000),
    ]
    n = at.count

    def attack(name: str, **changes: object) -> Scenario:
        # Of heads in floods each is verified, which is what takes the time: fewer runs of these.
        seeds = 2 if quick else 10 if "nuisance" in changes else 30
        return Scenario(name, replace(at, **changes), seeds)  # type: ignore[arg-type]

    found += [attack(f"targeted, c = {share:g}", colluders=colluders(n, share)) for share in (0.0, 0.6, 0.8, 0.9)]
    found += [
        attack("half split, c = 0.6", view=half, colluders=colluders(n, 0.6)),
        attack("eclipse: not called, c = 0.8", colluders=colluders(n, 0.8), hidden=frozenset({0})),
        attack("never the same size, c = 0.6", view=skewed, colluders=colluders(n, 0.6), look=ROUND),
        attack("late fork, c = 0.6", view=late, colluders=colluders(n, 0.6), look=ROUND, from_time=10 * ROUND),
        attack("head flood, c = 0.6", colluders=colluders(n, 0.6), lie=flood, nuisance=flood),
        attack("garbage, c = 0.6", colluders=colluders(n, 0.6), lie=garbage, nuisance=garbage),
        attack("colluding witnesses, c = 0.6", colluders=colluders(n, 0.6), witnessed=True),
        attack("30 % loss, c = 0.6", colluders=colluders(n, 0.6), loss=0.3, delay=(20, 5_000)),
        attack("partition, then healed", view=half, cut=apart, from_time=10 * ROUND),
    ]
    large = Plan(many, targeted, colluders(many, 0.3))
    found.append(Scenario("targeted, c = 0.3", large, 1 if quick else 5))
    found.append(Scenario("targeted, c = 0.6", replace(large, colluders=colluders(many, 0.6)), 1 if quick else 5))
    hour = replace(at, until=20 * ROUND)
    found.append(Scenario("stale view", replace(hour, view=frozen, look=ROUND), 2 if quick else 10, "unresolved"))
    found.append(Scenario("no honest contact", replace(hour, cut=alone), 2 if quick else 10, "undetected"))
    honest = replace(at, view=growing, look=ROUND, lag=300_000, loss=0.1, delay=(20, 2_000), witnessed=True)
    # 10 runs of 100 rounds of 100 monitors are 100,000; the day after which an entry counts as backdated is far.
    found.append(
        Scenario("honest log", replace(honest, until=(10 if quick else 102) * ROUND), 2 if quick else 10, "honest")
    )
    return found


def run(plan: Plan, seed: int) -> tuple[Result, int]:
    """Return what came of a run, and the most memory that the process has had, in bytes."""
    return World(plan, seed).run(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# Statistics


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share."""
    z, share = 1.96, hits / trials
    middle, width = share + z * z / (2 * trials), z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2))
    return max(0.0, middle - width) / (1 + z * z / trials), (middle + width) / (1 + z * z / trials)


def rounds(value: int) -> int:
    """Return in which round something was, the first being 1."""
    return max(1, -(-value // ROUND))


def quantiles(values: Sequence[int | None]) -> str:
    """Return the median, the 95th and 99th percentile; what did not come about counts as never."""
    ordered = sorted(rounds(value) if value is not None else math.inf for value in values)
    picked = [ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] for share in (0.5, 0.95, 0.99)]
    return "/".join("-" if value == math.inf else str(int(value)) for value in picked)


def last(values: Sequence[int | None], share: float) -> float:
    ordered = sorted(math.inf if value is None else rounds(value) for value in values)
    return ordered[math.ceil(share * len(ordered)) - 1]


def judge(scenario: Scenario, results: Sequence[Result]) -> str:
    """Return what is wrong with the results of a scenario, nothing if nothing is."""
    hits, trials = sum(one.first is not None for one in results), len(results)
    match scenario.expect:
        case "formula":
            chance = scenario.chance or 0.0
            sigma = math.sqrt(max(chance * (1 - chance), 1 / trials) / trials)
            off = abs(hits / trials - chance) / sigma
            return f"{off:.1f} sigma off the formula" if off > SIGMAS else ""
        case "detected":
            if hits < trials:
                return f"not detected in {trials - hits} of {trials}"
            slow = last([one.first for one in results], 0.99)
            return f"first detection at p99 in round {slow}" if "c = 0.6" in scenario.name and slow > 6 else ""
        case "unresolved":
            there = all(0 in one.unresolved for one in results)
            return "" if there and not hits else "no unresolved head at the victim, or an alarm"
        case "honest":
            kept, findings = sum(one.rounds for one in results), sum((one.findings for one in results), Counter())
            # Complaints too: of an honest log that is there nothing is to be said.
            return f"{dict(findings)} in {kept} rounds of a monitor" if findings else ""
        case _:
            return f"{hits} detected what nobody could" if hits else ""


@dataclass(frozen=True)
class Row:
    """What a scenario came to, as it is printed; and the curve of how many had evidence by each round."""

    cells: tuple[str, ...]
    wrong: str
    curve: tuple[float, ...]


HEAD: Final = ("scenario", "n", "runs", "detected (95 %)", "formula", "first", "at 90 %", "B/round", "MB", "alarms")


def summarize(scenario: Scenario, found: Iterable[tuple[Result, int]]) -> Row:
    pairs = list(found)
    results = [result for result, _ in pairs]
    hits = sum(one.first is not None for one in results)
    low, high = wilson(hits, len(results))
    lies = scenario.expect in ("detected", "formula", "undetected")
    whole = scenario.expect == "detected" and not scenario.plan.stop_at_first
    kept = sum(one.rounds for one in results)
    cells = (
        scenario.name,
        str(scenario.plan.count),
        str(len(results)),
        f"{hits / len(results):.3f} ({low:.3f}-{high:.3f})",
        "" if scenario.chance is None else f"{scenario.chance:.3f}",
        quantiles([one.first for one in results]) if hits else "never",
        quantiles([one.most for one in results]) if whole else "",
        "" if scenario.plan.quiet else f"{sum(one.sent_bytes for one in results) / kept:.0f}",
        f"{max(memory for _, memory in pairs) / 1e6:.0f}",
        "" if lies else f"{hits} in {kept}",
    )
    honest = scenario.plan.count - scenario.plan.colluders
    counts = [
        sum(rounds(when) <= at for one in results for when in one.convicted.values()) / (honest * len(results))
        for at in range(21)
    ]
    return Row(cells, judge(scenario, results), tuple(counts) if whole else ())


# Memory


def weigh(total: int) -> list[tuple[int, int, int]]:
    """Return round, bytes of this process, and bytes of a monitor's database, while two monitors are flooded."""
    world = World(Plan(4, growing, 2, until=total * ROUND, nuisance=plague, lie=pester, share=2.0, look=5 * ROUND), 1)
    found, process = list[tuple[int, int, int]](), psutil.Process()

    def sample() -> None:
        pages = [
            monitor.watcher.judge.memory._connection.execute(f"pragma {name}").fetchone()[0]
            for monitor in world.monitors
            for name in ("page_count", "page_size")
        ]
        kept = max(count * size for count, size in zip(pages[::2], pages[1::2], strict=True))
        found.append(((world.now - start) // ROUND, process.memory_info().rss, kept))
        world.later(total * ROUND // 10, sample)

    start = world.now
    world.later(total * ROUND // 10, sample)
    world.run()
    return found


# Output


def draw(rows: Sequence[Row]) -> str:
    """Return an SVG of how many of the honest have evidence by each round."""
    shown = [row for row in rows if row.curve]
    width, height, left, top = 560, 360, 50, 20
    parts = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 420" font-family="sans-serif" font-size="11">']
    for share in range(0, 101, 25):
        y = top + height * (1 - share / 100)
        parts.append(f'<path d="M{left} {y}h{width}" stroke="#ddd"/><text x="8" y="{y + 4}">{share} %</text>')
    for at in range(0, 21, 5):
        parts.append(f'<text x="{left + width * at / 20 - 4}" y="{top + height + 16}">{at}</text>')
    parts.append(f'<text x="{left}" y="{top + height + 34}">rounds since the lie; honest monitors with evidence</text>')
    for number, row in enumerate(shown):
        color = f"hsl({number * 360 // len(shown)} 65% 42%)"
        points = " ".join(
            f"{left + width * at / 20:.1f},{top + height * (1 - y):.1f}" for at, y in enumerate(row.curve)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        label = f"{row.cells[0]}, n = {row.cells[1]}"
        parts.append(f'<text x="{left + width + 12}" y="{top + 14 + 17 * number}" fill="{color}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])


def line(cells: Sequence[str]) -> str:
    widths = (32, 5, 5, 20, 8, 8, 8, 8, 5, 12)
    return " ".join(
        f"{cell:<{width}}" if not at else f"{cell:>{width}}"
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Gossip of many monitors against logs that lie, simulated.")
    parser.add_argument("--quick", action="store_true", help="fewer monitors and runs: half a minute")
    parser.add_argument("--svg", type=Path, help="write how evidence spreads to this file")
    parser.add_argument("--only", default="", help="only scenarios whose name has this in it")
    options = parser.parse_args()
    began, rows, wrong = time.monotonic(), list[Row](), list[str]()
    print(line(HEAD), flush=True)
    for scenario in scenarios(quick=options.quick):
        if options.only not in scenario.name:
            continue
        # Processes of its own for each, whose memory is that of this scenario.
        with ProcessPoolExecutor(2) as pool:
            plans = [scenario.plan] * scenario.seeds
            row = summarize(
                scenario, pool.map(run, plans, range(scenario.seeds), chunksize=max(1, scenario.seeds // 20))
            )
        rows.append(row)
        print(line(row.cells), flush=True)
        wrong += [f"{row.cells[0]}, n = {row.cells[1]}: {row.wrong}"] if row.wrong else []
    if options.only in "memory":
        with ProcessPoolExecutor(1) as pool:
            weights = pool.submit(weigh, 60 if options.quick else 10_000).result()
        print("\nround, process MB, database of a monitor kB, under flood")
        for at, process, database in weights:
            print(f"{at:>6} {process / 1e6:>8.1f} {database / 1e3:>8.0f}")
        # The log itself grows for the first eighth of the full run; after the half nothing may.
        middle, final = weights[len(weights) // 2], weights[-1]
        if final[1] > 1.05 * middle[1] or (final[2] > 1.05 * middle[2] and not options.quick):
            wrong.append("memory grows under flood")
    if options.svg:
        options.svg.write_text(draw(rows))
    print(f"\n{time.monotonic() - began:.0f} seconds")
    sys.exit("\n".join(["does not hold:", *wrong]) if wrong else 0)


if __name__ == "__main__":
    main()
