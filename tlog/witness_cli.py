"""`tlog witness`: a witness of any logs, with a folder of its own."""

from pathlib import Path

import click

from tlog.shell import report

_data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("witness"),
    show_default=True,
    help="The folder of the witness, never that of a log.",
)
_name_option = click.option(
    "--name",
    help="The witness's name for ever, such as witness.example/w1; needed if the folder is new.",
)


@click.group(
    epilog="""\b
Example:
  $ tlog witness key --data w1 --name witness.example/w1
  $ tlog witness serve --data w1 --logs logs
"""
)
def witness() -> None:
    """Run a witness: it cosigns checkpoints of logs that only grow.

    As C2SP tlog-witness says.
    """


@witness.command()
@_data_option
@_name_option
@click.option("--ml-dsa-44", is_flag=True, help="Make a key of ML-DSA-44 too, which also signs subtrees.")
def key(data: Path, name: str | None, ml_dsa_44: bool) -> None:
    """Print the verifier keys of the witness, one a line; on an empty folder, make one first."""
    from tlog.witness.folder import Folder

    def run() -> None:
        folder = Folder(data.absolute())
        signer = folder.open(name)
        if ml_dsa_44:
            folder.make_subtree_key(signer.name)
        for one in filter(None, (signer, folder.open_subtree_key(signer.name))):
            click.echo(one.verifier)

    report(run)


@witness.command()
@_data_option
@click.option("--logs", required=True, type=click.Path(path_type=Path), help="The logs to serve, a C2SP tlog-list.")
@_name_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The IP address to listen at.")
@click.option("--port", default=8081, show_default=True, type=click.IntRange(1, 65535), help="The port to listen at.")
def serve(data: Path, logs: Path, name: str | None, host: str, port: int) -> None:
    """Run the witness. One a folder, which is made if it is not there; it prints its verifier key."""
    from tlog.witness.folder import Folder
    from tlog.witness.serve import serve as run

    report(lambda: run(Folder(data.absolute()), logs, name, host, port))
