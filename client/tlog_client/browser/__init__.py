"""The ES modules by which a browser verifies what a log says, on pages of the server and offline."""

import re
from collections.abc import Iterator
from importlib.resources import files
from textwrap import indent
from typing import Final

_FOLDER: Final = files(__name__)
_IMPORT: Final = re.compile(r'^import (?:\{([^}]*)\}|\* as (\w+)) from "\./([\w-]+)\.js";\n', re.MULTILINE)
_EXPORT: Final = re.compile(r"^export (?=const|class|function|async function)", re.MULTILINE)
_EXPORTED: Final = re.compile(r"^export \{([^}]*)\};\n", re.MULTILINE)
_TOP_LEVEL: Final = re.compile(r"^(?:const|let|class|(?:async )?function\*?) ([\w$]+)", re.MULTILINE)


def one_script(*names: str) -> str:
    """Return these modules, and those that they import, as one script that imports nothing.

    Raises ValueError for a name that stands twice at the top level: there is one scope for all. A module that another
    imports whole, by `import * as`, has a scope of its own.
    """
    modules = dict(_in_order(names))
    joined = "\n".join(modules.values())
    found = _TOP_LEVEL.findall(joined)
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise ValueError(f"the modules have two of one name: {', '.join(twice)}")
    return joined


def _in_order(names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each module after those that it imports, perhaps more than once."""
    for name in names:
        source = _FOLDER.joinpath(f"{name}.js").read_text()
        for _, whole, imported in _IMPORT.findall(source):
            if whole:
                yield imported, _enclosed(whole, _FOLDER.joinpath(f"{imported}.js").read_text())
            else:
                yield from _in_order((imported,))
        yield name, _bare(source)


def _bare(source: str) -> str:
    bare = _EXPORT.sub("", _IMPORT.sub("", source))
    if re.search(r"^(?:import|export)\b", bare, re.MULTILINE):
        raise ValueError("a module imports or exports in a way that is not taken here")
    return bare


def _enclosed(name: str, source: str) -> str:
    exported = _EXPORTED.findall(source)
    # Indented, so that its names are not found at the top level.
    inner = indent(_EXPORTED.sub("", source), "  ")
    return f"const {name} = (() => {{\n{inner}  return {{{exported[0]}}};\n}})();\n"
