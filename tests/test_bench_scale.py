"""The scale curves: what is measured at a small size, and how growth is judged and shown."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from bench_scale import Plan, Scale, check_room, measure_entries, measure_segments, parse_arguments, steps
from bench_scale_report import ENTRIES, SEGMENTS, Cost, Curves, draw, judge, tabulate

SIZES = [10**power for power in range(3, 8)]


def cost(growth: str, of_size: Callable[[int], float]) -> Cost:
    return Cost("fsck & co", "s", ENTRIES, growth, found={size: of_size(size) for size in SIZES})


@pytest.mark.parametrize(
    ("growth", "of_size"),
    [
        ("constant", lambda _: 7.0),
        ("constant", lambda size: 7 + 1000 / size),
        ("log n", lambda size: len(str(size))),
        ("n", lambda size: 0.5 + size / 25_000),
        ("n", lambda size: 1.2 * size if size == 10**5 else size),
    ],
    ids=["all alike", "falling", "with the digits", "a fixed part", "one disturbed"],
)
def test_what_grows_as_expected_is_not_blamed(growth: str, of_size: Callable[[int], float]) -> None:
    assert judge(cost(growth, of_size)).reached()


@pytest.mark.parametrize(
    ("growth", "of_size"),
    [
        ("constant", lambda size: len(str(size))),
        ("log n", lambda size: size**0.2),
        ("n", lambda size: 60 + size / 25_000 + (size / 10**6) ** 2 * 20),
        ("n", lambda size: size * len(str(size))),
    ],
    ids=["a logarithm", "a small power", "a square behind a fixed part", "n log n"],
)
def test_what_grows_faster_than_expected_is_named(growth: str, of_size: Callable[[int], float]) -> None:
    lines = list(tabulate(Curves({}, [cost(growth, of_size)])))
    assert lines[-1].startswith(f"MISSED   fsck & co by entries, of {growth}: ")


def test_what_is_another_matter_among_few_is_shown_and_not_judged() -> None:
    warm = replace(cost("constant", lambda size: 1.0 if size < 10**5 else 9.0), least=10**5)
    assert judge(warm).reached()
    assert re.search(r" 1\.00 +1\.00 +9\.00 +9\.00 +9\.00 +0\.00 ", "\n".join(tabulate(Curves({}, [warm]))))
    assert not judge(replace(warm, least=1)).reached()


def test_the_slope_is_the_power_of_n() -> None:
    square = cost("n", lambda size: 3.0 * size**2)
    assert square.slope() == pytest.approx(2)
    assert square.expected_slope() == pytest.approx(1)


def test_the_chart_has_each_cost_beside_its_expected_growth() -> None:
    costs = [cost("n", lambda size: size), cost("n", lambda size: size**1.5)]
    shown = ET.fromstring(draw(Curves({"date": "2026-01-02", "cpus": 2}, costs)))  # noqa: S314 - it is ours
    lines = shown.findall("{*}polyline")
    assert len(lines) == 4
    assert lines[0].get("points") == lines[1].get("points")
    # The cheapest by its expectation is the first, from which on it rises.
    expected, found = (line.get("points", "").split() for line in lines[2:])
    assert [one == other for one, other in zip(expected, found, strict=True)] == [True, False, False, False, False]
    # Only what grows faster than expected is red.
    assert lines[1].get("stroke") != lines[3].get("stroke") == "#dc2626"
    assert len(shown.findall("{*}circle")) == 2 * len(SIZES)


@pytest.mark.parametrize("words", [["--largest", "999"], ["--largest", "1e6"], ["--segments", "0"]])
def test_arguments_that_mean_nothing_are_refused_with_what_to_give(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(words)
    assert re.search("give a whole number, at least 1", capsys.readouterr().err)


def test_sizes_are_powers_of_ten_up_to_the_largest() -> None:
    assert steps(1_000, 10**7) == SIZES
    assert steps(1_000, 20_000) == [1_000, 10_000, 20_000]
    assert steps(1, 1) == [1]


def test_a_run_begins_only_where_there_is_room(tmp_path: Path) -> None:
    check_room(tmp_path, 1)
    with pytest.raises(SystemExit, match=r"GB free.*point TMPDIR to where there is more, or give less"):
        check_room(tmp_path, 1 << 60)


@pytest.mark.long
def test_each_cost_is_measured(tmp_path: Path) -> None:
    scale = Scale(Plan(entries=[1_000], segments=[1, 3], requests=5, starts=1), tmp_path)
    measure_entries(scale)
    measure_segments(scale)
    for one in scale.costs.values():
        assert [*one.found] == ([1, 3] if one.of == SEGMENTS else [1_000]), one.name
        assert all(value > 0 for value in one.found.values()), one
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["state-1000"]
