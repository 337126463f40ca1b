"""``alight``: the table of commands, and the one way in and out of the process.

``alight --help`` must not load a single command, so the table holds what help shows and where each command lives; the
module loads when its command runs. Nothing else in Alight calls ``sys.exit``.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Any, Dict, List, NamedTuple, NoReturn, Optional, Sequence

import click

from alight.wire.version import __version__


class Entry(NamedTuple):
    """A command: where it lives and what ``alight --help`` says about it."""

    module: str
    attribute: str
    help: str


#: Panels of ``alight --help``, in order, with their commands.
PANELS: Dict[str, Dict[str, Entry]] = {
    "Run": {
        "run": Entry("run", "run", "Run a function or local entrypoint of a script"),
        "python": Entry("python", "python", "Run a Python script in which `import modal` means Alight"),
        "deploy": Entry("deploy", "deploy", "Keep an app callable from anywhere, until it is stopped"),
        "serve": Entry("serve", "serve", "Run an app until Ctrl-C and reload it on change"),
        "shell": Entry("shell", "shell", "Open a shell in a function's container or an image"),
        "curl": Entry("curl", "curl", "Call a web function by curl, with credentials"),
    },
    "Look": {
        "app": Entry("app", "app", "List apps, read their logs, go back a version, stop them"),
        "call": Entry("call", "call", "Look at calls: what runs, what waits and why"),
        "schedule": Entry("schedule", "schedule", "Functions that run by themselves: list, run now, pause"),
        "billing": Entry("billing", "billing", "What was used, what it cost, and what it may cost"),
        "container": Entry("container", "container", "List containers, see where their starts went, stop them"),
        "function": Entry("function", "function", "Look at functions: what became of inputs, what containers use"),
        "top": Entry("top", "top", "Show what runs and what it uses, live"),
        "gpu": Entry("gpu", "gpu", "List GPUs: who holds them, how they are"),
        "dashboard": Entry("dashboard", "dashboard", "Open the dashboard in a browser"),
    },
    "Keep": {
        "volume": Entry("volume", "volume", "Files that outlive their containers"),
        "nfs": Entry("nfs", "nfs", "The old name of `alight volume`"),
        "secret": Entry("secret", "secret", "Values that only containers see"),
        "image": Entry("image", "image", "What functions run in: list, look, clear up"),
        "queue": Entry("queue", "queue", "Queues that functions share: list, peek, clear"),
        "dict": Entry("dict", "dict_", "Dictionaries that functions share: list, look, clear"),
    },
    "This machine": {
        "server": Entry("server", "server", "Start, stop and look at the server"),
        "node": Entry("node", "node", "List machines, lend this one to a server"),
        "doctor": Entry("doctor", "doctor", "Check what this machine can do, and fix what it cannot"),
        "uninstall": Entry("uninstall", "uninstall", "Stop everything and remove Alight's state"),
    },
    "Settings": {
        "setup": Entry("setup", "setup", "Connect this machine to a server elsewhere"),
        "token": Entry("token", "token", "Who may use the server"),
        "profile": Entry("profile", "profile", "Which server to use"),
        "config": Entry("config", "config", "Show the settings in force"),
        "workspace": Entry("workspace", "workspace", "Tokens for callers of protected web functions"),
        "environment": Entry("environment", "environment", "Sets of names: make, list, choose, delete them"),
    },
}


class _ReaderGone(Exception):
    """Nobody reads our output any more. click would make status 1 of what caused this, and forget what it was."""


class _Root(click.Group):
    """The root group. Knows its commands by the table and loads them one by one."""

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """The console script."""
        del args, kwargs
        code = run()
        from alight.cli import interrupts  # noqa: PLC0415  start-up weight

        interrupts.ignored()
        sys.exit(code)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except BrokenPipeError as error:  # of `alight --help`
            raise _ReaderGone from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGone from error
        except KeyboardInterrupt as interrupt:
            # click would take it for an answer to a question and forget what it says
            from alight.cli.errors import Interrupted  # noqa: PLC0415  start-up weight

            raise Interrupted(str(interrupt)) from interrupt

    def list_commands(self, ctx: click.Context) -> List[str]:
        del ctx
        return [name for panel in PANELS.values() for name in panel]

    def get_command(self, ctx: click.Context, cmd_name: str) -> Optional[click.Command]:
        del ctx
        for panel in PANELS.values():
            if cmd_name in panel:
                entry = panel[cmd_name]
                loaded = getattr(importlib.import_module(f"alight.cli.{entry.module}"), entry.attribute)
                assert isinstance(loaded, click.Command)
                return loaded
        return None

    def resolve_command(
        self, ctx: click.Context, args: List[str]
    ) -> tuple[Optional[str], Optional[click.Command], List[str]]:
        if args and args[0].endswith(".py"):
            raise click.UsageError(f"there is no command {args[0]!r}; did you mean `alight run {' '.join(args)}`?", ctx)
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            meant = f"; did you mean `alight {close[0]}`?" if close else ""
            raise click.UsageError(f"there is no command {args[0]!r}{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        column = max(len(name) for panel in PANELS.values() for name in panel)
        for title, panel in PANELS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(column), entry.help) for name, entry in panel.items()])


@click.group(
    cls=_Root,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Serverless Python on machines you own.",
)
@click.version_option(__version__, prog_name="alight", message="%(prog)s %(version)s")
@click.option("--profile", metavar="NAME", help="Use this profile of the configuration file.")
def main(profile: Optional[str]) -> None:
    """Every command starts here; the profile must be known before any of them reads the configuration."""
    if profile:
        os.environ["ALIGHT_PROFILE"] = profile


def run(args: Optional[Sequence[str]] = None) -> int:
    """Run one command line and return its exit code. Prints whatever went wrong."""
    try:
        code = main.main(list(args) if args is not None else None, prog_name="alight", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001  every error becomes words here
        from alight.cli import errors  # noqa: PLC0415  start-up weight

        return errors.report(error.__cause__ if isinstance(error, _ReaderGone) and error.__cause__ else error)
