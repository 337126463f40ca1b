"""``alight server backup`` and ``restore``: a server as a directory, and back; and a new key for its secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Optional, Tuple

import click

from alight.cli import options, service, session, tables, terminal
from alight.cli.terminal import Style
from alight.sdk import config, services
from alight.wire.backups import BackupMade, BackupMake, BackupSaid
from alight.wire.codec import loads_head
from alight.wire.errors import Error
from alight.wire.stored import KeyRotated


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--with-key", is_flag=True, help="Put the keys of the secrets and of the certificate into it, in plain bytes."
)
@click.option("--volume", "names", metavar="NAME", multiple=True, help="Put this volume's files into it; may repeat.")
@click.option("--volumes", "every", is_flag=True, help="Put the files of all volumes of all environments into it.")
@options.environment
def backup(directory: Path, with_key: bool, names: Tuple[str, ...], every: bool, environment: Optional[str]) -> None:
    """Write the server's state into a new directory of its machine, while it runs.

    Apps with their code and versions, calls and their results, secrets (sealed), dicts and queues, schedules, tokens.
    Not in it: logs, built images (they are built again), and volumes unless you name them.
    """
    asked = BackupMake(
        str(directory.absolute()), with_key, ("*",) if every else names, environment=session.environment(environment)
    )
    made = None
    for head, _ in session.stream("server.backup", asked):
        if b'"doing"' in head[:12]:
            said = loads_head(BackupSaid, head)
            if terminal.is_terminal(sys.stderr):
                size = f", {tables.size(said.bytes)}" if said.bytes else ""
                print(f"\r\033[K{said.doing}{size}", end="", file=sys.stderr, flush=True)
        else:
            made = loads_head(BackupMade, head)
    if terminal.is_terminal(sys.stderr):
        print("\r\033[K", end="", file=sys.stderr)
    if made is None:
        raise Error("the server ended the backup without a word", hint="`alight server logs` may say more")
    style = Style(colour=terminal.wants_colour(sys.stderr))
    volumes = f", volumes {', '.join(made.volumes)}" if made.volumes else ", no volumes"
    print(
        f"{style.good('✓')} Backup in {made.path}: {made.files} files, {tables.size(made.bytes)}{volumes}",
        file=sys.stderr,
    )
    if made.unkeyed:
        print(
            f"{style.warning('! warning:')} {made.unkeyed} secrets are in it and their key is not. Keep a copy of "
            f"{made.key_file} somewhere else, or use --with-key",
            file=sys.stderr,
        )
    for note in made.notes:
        print(f"{style.warning('! warning:')} {terminal.clean(note)}", file=sys.stderr)


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--key", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The key, where the backup has none."
)
@click.option("--without-secrets", is_flag=True, help="Go on although the values of secrets cannot be read.")
def restore(directory: Path, key: Optional[Path], without_secrets: bool) -> None:
    """Make the state of this machine's server from a backup. There must be none yet; no server may run.

    Every file is checked. `alight server start` starts the server then.
    """
    command = [sys.executable, "-m", "alight.server.restoring", str(directory), "--home", str(config.home())]
    command += ["--key", str(key)] if key is not None else []
    command += ["--without-secrets"] if without_secrets else []
    settings = service.settings() if services.of(config.home()) else {}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**settings, **os.environ})
    if done.returncode:
        sentence, _, hint = done.stderr.strip().partition("\nhint: ")
        raise Error(terminal.clean(sentence), hint=terminal.clean(hint) or None)
    style = Style(colour=terminal.wants_colour(sys.stderr))
    first, *others = done.stdout.strip().splitlines()
    print(f"{style.good('✓')} {terminal.clean(first)}", file=sys.stderr)
    for line in others:
        print(f"{style.warning('! warning:')} {terminal.clean(line)}", file=sys.stderr)
    print("Start it: alight server start", file=sys.stderr)


@click.command("rotate-key")
@options.yes
def rotate_key(yes: bool) -> None:
    """Seal all secrets with a new key, while the server runs. The old key is gone afterwards.

    Backups from before need the old key: keep a copy of it if you want to restore from them.
    """
    options.confirm("Make a new key and forget the old one?", yes=yes)
    done = session.ask("secret.rotate", {}, KeyRotated)
    print(f"Sealed {done.secrets} secrets with a new key, {done.key_id}", file=sys.stderr)
