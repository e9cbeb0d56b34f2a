"""nginx in front of a server, as `spec/nginx.conf` sets it up, but for the addresses and the places of its files."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
SITE: Final = ROOT / "spec" / "nginx.conf"
_HOST: Final = "127.0.0.1"
_SECONDS: Final = 30

# What the nginx.conf of a distribution has around the files of its conf.d.
_MAIN: Final = """
daemon off;
user root;
worker_processes {workers};
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    sendfile on;
    tcp_nopush on;
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
    {more}
}}
"""


def program() -> str:
    """Return where nginx is; RuntimeError says why there is none."""
    found = subprocess.run([ROOT / "scripts" / "nginx"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise RuntimeError(found.stderr.strip())
    return found.stdout.strip()


WITHOUT_TLS: Final[Mapping[str, str]] = {
    " ssl;": ";",
    "    ssl_certificate /etc/ssl/certs/log.example.com.pem;\n": "",
    "    ssl_certificate_key /etc/ssl/private/log.example.com.key;\n": "",
}


def site(folder: Path, port: int, log: int, changes: Mapping[str, str]) -> str:
    """Return the site for a proxy at `port`, in front of a log at `log`; each change must apply."""
    text = SITE.read_text()
    for old, new in {
        "listen 443": f"listen {_HOST}:{port}",
        "/var/lib/nginx/tlog": f"{folder}/cache",
        "127.0.0.1:8080": f"{_HOST}:{log}",
        **changes,
    }.items():
        if old not in text:
            raise RuntimeError(f"{SITE} has no {old!r}")
        text = text.replace(old, new)
    return text


@contextmanager
def proxying(
    folder: Path, *, port: int, log: int, changes: Mapping[str, str] = WITHOUT_TLS, workers: int = 1, more: str = ""
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run nginx at a port in front of a log's, in a new folder, until the block ends; `more` is for its `http`."""
    folder.mkdir()
    (folder / "site.conf").write_text(site(folder, port, log, changes))
    main = folder / "nginx.conf"
    main.write_text(_MAIN.format(folder=folder, workers=workers, more=more))
    process = subprocess.Popen([program(), "-p", folder, "-c", main, "-e", folder / "error.log"])
    try:
        _wait(process, port, folder / "error.log")
        yield process
    finally:
        process.terminate()
        process.wait(_SECONDS)


def _wait(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and process.poll() is None:
        connection = HTTPConnection(_HOST, port, timeout=_SECONDS)
        with suppress(OSError):
            connection.connect()
            connection.close()
            return
        time.sleep(0.01)
    raise RuntimeError(f"nginx did not start: {log.read_text() if log.exists() else 'see above'}")
