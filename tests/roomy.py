"""The command `tlog` on a disk that has as many bytes free as stand in the file that TLOG_FREE names."""

import os
from pathlib import Path
from types import SimpleNamespace

if __name__ == "__main__":
    file = Path(os.environ["TLOG_FREE"])
    os.statvfs = lambda _: SimpleNamespace(f_bavail=int(file.read_text()), f_frsize=1)  # type: ignore[assignment, return-value]

    from tlog.cli import main

    main()
