"""The command `tlog` by a clock that is off by as many seconds as stand in the file that TLOG_CLOCK names."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Number = TypeVar("Number", int, float)


def shifted(clock: Callable[[], Number], unit: int, shift: Path) -> Callable[[], Number]:
    return lambda: clock() + int(shift.read_text()) * unit


if __name__ == "__main__":
    file = Path(os.environ["TLOG_CLOCK"])
    time.time = shifted(time.time, 1, file)
    time.time_ns = shifted(time.time_ns, 1000000000, file)

    from tlog.cli import main

    main()
