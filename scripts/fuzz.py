"""Fuzzes one target of tests/fuzzing.py with atheris; without arguments, says which there are. Run by scripts/fuzz.

Arguments: the target, the folder of its corpus, and options of libFuzzer.
"""

import hashlib
import re
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

# Others' parsers that are written in Python count as ours: a way through them is a way through ours.
with atheris.instrument_imports(include=["tlog", "tlog_core", "tlog_client", "tomllib", "rfc8785", "jwt"]):
    import fuzzing


WORD = re.compile(rb"[\w+/=.:-]{2,64}|[^\w\s]{1,4}")


def seed(name: str, folder: Path) -> Path:
    """Put into the folder what the target begins from, and beside it a dictionary of its words; return that."""
    seeds = [*fuzzing.TARGETS[name].seeds(), *(path.read_bytes() for path in (fuzzing.CORPUS / name).glob("*"))]
    for raw in seeds:
        (folder / hashlib.sha256(raw).hexdigest()[:16]).write_bytes(raw)
    words = sorted({word for raw in seeds for word in WORD.findall(raw)})
    lines = ["".join(f"\\x{byte:02x}" for byte in word) for word in words[:1000]]
    dictionary = folder.with_suffix(".dict")
    dictionary.write_text("".join(f'"{line}"\n' for line in lines))
    return dictionary


def main() -> None:
    if len(sys.argv) == 1:
        print("\n".join(fuzzing.TARGETS))
        return
    command, name, folder, *options = sys.argv
    dictionary = seed(name, Path(folder))
    atheris.Setup([command, *options, f"-dict={dictionary}", folder], fuzzing.TARGETS[name].check)
    atheris.Fuzz()


main()
