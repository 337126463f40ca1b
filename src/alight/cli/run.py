"""``alight run``: a script's function in a real container, its output here, its result or its exception back.

Everything that can be wrong with the command line is found before a server is asked for anything. How an app runs is
the SDK's; how it looks is ``render.py``'s; this file puts them together.
"""

from __future__ import annotations

import inspect
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Set, Tuple

import click

from alight.cli import arguments as synthesized
from alight.cli import terminal, warn
from alight.cli.errors import UsageError, UserCodeError
from alight.wire.billing import AppCostAsk, BudgetSet, CostTold
from alight.wire.errors import Error, InvalidError


@dataclass(frozen=True)
class _Options:
    """What was asked of this run, besides the function and its arguments."""

    name: Optional[str]
    write_result: Optional[Path]
    quiet: bool
    detach: bool
    environment: Optional[str]
    gpu: Optional[str]
    timestamps: bool
    interactive: bool
    max_cost: Optional[str]
    max_gpu_seconds: Optional[str]
    stop_at_budget: bool


@click.command(
    context_settings={"allow_interspersed_args": False},
    short_help="Run a function or local entrypoint of a script.",
)
@click.option("-n", "--name", metavar="NAME", help="What to call this run.")
@click.option(
    "-w",
    "--write-result",
    metavar="PATH",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what the function returns to a file. It must be str or bytes.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show neither progress nor the output of containers.")
@click.option("-d", "--detach", is_flag=True, help="Let the app go on when this command ends or is interrupted.")
@click.option(
    "-i",
    "--interactive",
    is_flag=True,
    help="Lend this terminal to `alight.interact()` and `breakpoint()` in containers.",
)
@click.option("-m", "module", is_flag=True, help="REF names a module: pkg.mod[::NAME].")
@click.option("-e", "--env", "environment", metavar="NAME", help="The environment to run in.")
@click.option(
    "--gpu", metavar="none|TYPE", help="Run every function on this GPU instead of its own; 'none' runs it without one."
)
@click.option("--max-cost", metavar="MONEY", help="What this run may cost: beyond it, new inputs wait.")
@click.option("--max-gpu-seconds", metavar="SECONDS", help="How many seconds of GPUs this run may have.")
@click.option("--stop-at-budget", is_flag=True, help="Stop what runs, too, when one of these is reached.")
@click.option("--timestamps", is_flag=True, help="Put the time before each line of output.")
@click.option(
    "--substitute-base",
    "substitutes",
    metavar="IMAGE=BASE",
    multiple=True,
    help="Let BASE stand in for a registry image, for machines that reach no registry.",
)
@click.argument("reference", metavar="REF")
@click.argument("words", metavar="[ARGS]...", nargs=-1, type=click.UNPROCESSED)
def run(
    reference: str,
    words: Tuple[str, ...],
    module: bool,
    interactive: bool,
    substitutes: Tuple[str, ...],
    **options: Any,
) -> None:
    """Run a function or local entrypoint of a script.

    REF is script.py, script.py::NAME, script.py::app.NAME, or - for a script on standard input; with -m it is a module.
    Without a NAME the script must have one local entrypoint, or else one function. Everything after REF belongs to the
    function: `alight run script.py::NAME --help` shows its options.
    """
    chosen = _Options(interactive=interactive, **options)
    _check_interactive(chosen)
    _check_result_path(chosen.write_result)
    budget = _budget(chosen)
    if chosen.gpu is not None and not chosen.gpu.strip():
        raise UsageError("--gpu wants a type of GPU, or none", hint="--gpu none runs functions without a GPU")

    if substitutes:
        substitute(substitutes)

    from alight import compat  # noqa: PLC0415  after the options were found to be right
    from alight.cli import loading  # noqa: PLC0415  start-up weight

    warn.show_plainly()
    compat.install()
    parsed = loading.parse(reference, module=module)
    sys.argv = [parsed.place, *words]
    loaded = loading.load(parsed)

    from alight.cli import references  # noqa: PLC0415  loads the SDK

    runnable = references.find(loaded, parsed)
    usage = f"alight run {'-m ' if module else ''}{reference}"
    try:
        given = synthesized.parse(runnable.signatures, runnable.name, list(words), usage)
    except click.NoSuchOption as error:
        known = [one for one in run.params if error.option_name in one.opts]
        if not known:
            raise
        value = "" if getattr(known[0], "is_flag", False) else " …"
        raise UsageError(
            f"{error.option_name} is an option of `alight run`, and what follows the script is for the script",
            hint=f"alight run {error.option_name}{value} {reference}",
        ) from None
    if given is None:
        return
    _check_returns_once(runnable)
    value = _execute(runnable, given, chosen, budget)
    if chosen.write_result is not None:
        _write(chosen.write_result, value, runnable.name)


def substitute(substitutes: Tuple[str, ...]) -> None:
    """Put what the command line says before the setting, for this process. Raises InvalidError."""
    from alight.sdk import config, image_substitutes  # noqa: PLC0415  only this option needs them

    text = "; ".join((*substitutes, str(config.load()[image_substitutes.SETTING])))
    image_substitutes.parse(text)
    os.environ["ALIGHT_IMAGE_SUBSTITUTES"] = text


def _execute(runnable: Any, given: synthesized.Arguments, options: _Options, budget: Optional[BudgetSet] = None) -> Any:
    import contextlib  # noqa: PLC0415  start-up weight

    from alight.cli import interrupts, render  # noqa: PLC0415  start-up weight
    from alight.sdk import progress  # noqa: PLC0415  loads the SDK

    started = time.monotonic()
    needed: Optional[Set[str]] = None if runnable.kind == "entrypoint" else {runnable.name}
    value: Any = None
    interrupted = False
    began = False
    with contextlib.ExitStack() as stack:
        presses = stack.enter_context(interrupts.handled())
        drawing = None if options.quiet else render.make_renderer(timestamps=options.timestamps)
        if drawing is not None:
            stack.enter_context(progress.showing(drawing))
        try:
            with runnable.app.run(
                name=options.name,
                detach=options.detach,
                interactive=options.interactive,
                environment_name=options.environment,
                _needed=needed,
                _gpu=options.gpu,
                _budget=budget,
            ):
                began = True
                if drawing is not None:
                    drawing.phase("")
                    _tell_page(runnable.app.app_id, drawing)
                try:
                    value = _call(runnable, given, options, drawing)
                except KeyboardInterrupt:
                    interrupted = True
                    raise
        except KeyboardInterrupt:
            interrupted = True
        except Exception:
            if drawing is not None and began:  # its traceback comes below
                drawing.note(f"Failed after {_ran(runnable, started)}")
            raise
        if drawing is not None and interrupted and began and not options.detach and presses.count < 2:
            drawing.note(f"Stopped after {_ran(runnable, started)}")
        if drawing is not None and not interrupted:
            drawing.done(f"Finished in {_ran(runnable, started)}")
            _tell_slow_start(runnable.app.app_id, drawing)
        if interrupted:
            raise KeyboardInterrupt(_farewell(runnable, options, presses.count))
    return value


def _tell_page(app_id: Optional[str], drawing: Any) -> None:
    """Where the run can be looked at."""
    from alight.cli import dashboard  # noqa: PLC0415  start-up weight

    line = dashboard.line_of(app_id, "View run at") if app_id else ""
    if line:
        drawing.note(line)


def _ran(runnable: Any, started: float) -> str:
    """How long a run took and what it cost."""
    return f"{time.monotonic() - started:.1f} s{_cost(runnable.app.app_id)}"


def _cost(app_id: Optional[str]) -> str:
    """What the run had of the machines, and what that cost: ": 41 s on 1 x A100-40GB, $0.03"."""
    from alight.cli import money, session  # noqa: PLC0415  start-up weight

    try:
        line = money.run_line(session.ask("usage.app", AppCostAsk(app_id), CostTold)) if app_id else ""
    except Error:
        return ""  # the run is done and was told: what it cost can be asked again
    return f": {line}" if line else ""


def _budget(options: _Options) -> Optional[BudgetSet]:
    """What this run may cost, as a budget whose name is still to come."""
    from alight.cli import money  # noqa: PLC0415  start-up weight

    cost = money.read(options.max_cost, "--max-cost")
    seconds = money.read(options.max_gpu_seconds, "--max-gpu-seconds")
    if cost is None and seconds is None:
        if options.stop_at_budget:
            raise UsageError("--stop-at-budget needs a budget", hint="add --max-cost or --max-gpu-seconds")
        return None
    return BudgetSet("run", "", cost=cost, gpu_seconds=seconds, stop=options.stop_at_budget)


def _tell_slow_start(app_id: Optional[str], drawing: Any) -> None:
    """What would have made a slow start shorter, in one line; nothing where nothing is known."""
    from alight.cli import start_words  # noqa: PLC0415  start-up weight

    try:
        sentence = start_words.slowest(app_id) if app_id else ""
    except Error:
        return  # the run is done and was told: what it could have been is not worth an error
    if sentence:
        drawing.note(sentence)


def _call(runnable: Any, given: synthesized.Arguments, options: _Options, drawing: Any) -> Any:
    """The user's part. What it raises is the user's, whoever's type it has."""
    named = given.named or {}
    try:
        if runnable.kind == "entrypoint":
            if options.detach and drawing is not None:
                drawing.note("detached: when this command ends, only the call that was started last goes on")
            value = runnable.target._raw(*given.positional, **named)  # noqa: SLF001  the CLI is the SDK's face
            if inspect.iscoroutine(value):
                import asyncio  # noqa: PLC0415  async entrypoints only

                return asyncio.run(value)
            return value
        function = runnable.target
        if runnable.kind == "method":
            function = _bound_method(runnable, named)
        if options.detach:
            call = function.spawn(*given.positional, **named)
            if drawing is not None:
                drawing.note(f"detached: the call is {call.object_id}")
            return call.get()
        return function.remote(*given.positional, **named)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise UserCodeError(error) from error


def _bound_method(runnable: Any, named: dict[str, Any]) -> Any:
    """The method on an object made from the class's parameters, which are taken out of ``named``."""
    constructor, method = runnable.signatures
    of_method = set(inspect.signature(method).parameters)
    of_class = [name for name in inspect.signature(constructor).parameters if name not in of_method]
    made = runnable.target(**{name: named.pop(name) for name in of_class if name in named})
    return getattr(made, runnable.method)


def _check_returns_once(runnable: Any) -> None:
    raw = runnable.signatures[-1]
    if inspect.isgeneratorfunction(raw) or inspect.isasyncgenfunction(raw):
        raise InvalidError(
            f"{runnable.name}() is a generator, which cannot be run from the command line",
            hint="write a @app.local_entrypoint() that loops over it",
        )


def _check_interactive(options: _Options) -> None:
    if not options.interactive:
        return
    for given, flag in ((options.quiet, "--quiet"), (options.detach, "--detach")):
        if given:
            raise UsageError(f"--interactive and {flag} exclude each other", hint="leave one of the two away")
    if not (terminal.is_terminal(sys.stdin) and terminal.is_terminal(sys.stdout)):
        raise UsageError(
            "--interactive needs a terminal: standard input or output is a pipe, a file or nothing",
            hint="start it from a terminal, without redirections",
        )


def _check_result_path(path: Optional[Path]) -> None:
    """Before hours of work, not after them."""
    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UsageError(f"the result cannot be written: there is no directory {folder}", hint=f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK):
        raise UsageError(f"the result cannot be written: {folder} is not writable")


def _write(path: Path, value: Any, name: str) -> None:
    if isinstance(value, str):
        path.write_text(value, encoding="utf-8")
    elif isinstance(value, (bytes, bytearray, memoryview)):
        path.write_bytes(bytes(value))
    else:
        raise InvalidError(
            f"{name}() returned a value of type {type(value).__name__}, and --write-result writes str or bytes",
            hint="return str or bytes, for example json.dumps(…)",
        )


def _farewell(runnable: Any, options: _Options, presses: int) -> str:
    app_id = runnable.app.app_id or ""
    if options.detach:
        return (
            f"Interrupted: the app goes on; `alight app logs -f {app_id}` follows, `alight app stop {app_id}` ends it"
        )
    if presses > 1:
        return "Interrupted twice: left at once; the server stops the app within two minutes"
    return "Interrupted: the app was stopped, its containers are gone"
