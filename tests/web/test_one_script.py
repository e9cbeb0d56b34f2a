"""Python makes one script out of the modules, for a page that fetches nothing."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from nodejs import NODE, needs_node

import tlog_client.browser
from tlog_client.browser import one_script

MODULES = sorted(path.stem for path in Path(tlog_client.browser.__file__).parent.glob("*.js"))
OURS = [name for name in MODULES if name != "noble-ed25519"]


@needs_node
def test_one_script_of_all_modules_verifies(tmp_path: Path) -> None:
    (tmp_path / "all.js").write_text(one_script(*OURS) + CHECK)
    run = subprocess.run([str(NODE), "all.js"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (run.returncode, run.stdout) == (0, "true false\n"), run.stderr


def test_each_module_stands_once_in_one_script() -> None:
    script = one_script("receipt", "evidence", "receipt")
    assert script.count("class MalformedError") == 1
    assert "import" not in {line.split(" ", 1)[0] for line in script.splitlines()}


def test_a_name_that_stands_twice_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "one.js").write_text('import { two } from "./other.js";\nexport function hash() {}\n')
    (tmp_path / "other.js").write_text("const hash = 1;\nexport const two = 2;\n")
    monkeypatch.setattr(tlog_client.browser, "_FOLDER", tmp_path)
    with pytest.raises(ValueError, match="two of one name: hash"):
        one_script("one")


def test_an_import_that_would_be_left_in_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "one.js").write_text('import two from "./other.js";\n')
    monkeypatch.setattr(tlog_client.browser, "_FOLDER", tmp_path)
    with pytest.raises(ValueError, match="imports or exports"):
        one_script("one")


def test_what_npm_made_is_as_it_came() -> None:
    package = Path(tlog_client.browser.__file__).parent / "noble-ed25519.js"
    assert hashlib.sha256(package.read_bytes()).hexdigest() == NOBLE_3_2_0


# Of index.js in @noble/ed25519.
NOBLE_3_2_0 = "a4f631d1876b5d9e43a86cd71194ca27b5e1451edf4ba4db9a418f40a475569a"
# Test 1 of RFC 8032, section 7.1, and the same with another message.
CHECK = """
(async () => {
  const key = decodeHex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  const signature = decodeHex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
  );
  const isOther = await isEd25519(signature, new Uint8Array(1), key);
  console.log(await isEd25519ByNoble(signature, new Uint8Array(), key), isOther);
})();
"""
