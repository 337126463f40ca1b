"""``alight curl``: this machine's curl, with credentials for protected web functions of ours and for nobody else.

The credentials are a token that the server lends for as long as the command lives. It reaches curl by a pipe, not by a
command line, which every user of the machine could read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import Dict, Iterator, List, NamedTuple, Sequence, Set, Tuple
from urllib.parse import SplitResult, urlsplit

import click

from alight.cli import session
from alight.wire.admission import TokenCreated
from alight.wire.deploying import AppDescribed, AppFind, EnvironmentListed
from alight.wire.errors import Error, NotFoundError
from alight.wire.messages import AppList, AppListed
from alight.wire.states import AppState
from alight.wire.urls import ProxyTokenCreate, WebUrl

_NAME = "alight curl"  # of its tokens
_PORTS = {"http": 80, "https": 443}
#: A line of `curl --help all`: what of an option is short, long, and whether it takes a value.
_OPTION = re.compile(r"^\s*(?:(-\S),\s+)?(--[\w.-]+)(\s+<)?")


class _Asked(NamedTuple):
    """What a command line of curl says: its URLs, the options that it has, and whether more may come from a file."""

    urls: List[str]
    options: Set[str]


@click.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": ["--help"],
    },
    short_help="Call a web function by curl, with credentials if it wants any.",
)
@click.argument("words", metavar="ARGS...", nargs=-1, type=click.UNPROCESSED)
def curl(words: Tuple[str, ...]) -> None:
    """Run curl with these arguments. Protected web functions of this server get a token, which ends with the command.

    No other host ever gets it: when a URL is nobody's here, curl runs without. Names below `localhost` lead to this
    machine. The exit status is curl's.
    """
    program = shutil.which("curl")
    if program is None:
        raise NotFoundError("curl is not installed here", hint="apt install curl")
    asked = parse(words, _options(program))
    settings = [f'resolve = "{name}"' for name in _to_this_machine(asked.urls)]
    if _wants_token(asked):
        with session.lent("proxy_token.lend", ProxyTokenCreate(_NAME), TokenCreated) as token:
            code = _run(program, words, settings + headers(token, asked))
    else:
        code = _run(program, words, settings)
    if code:
        raise click.exceptions.Exit(code)


def parse(words: Sequence[str], takes_value: Dict[str, bool]) -> _Asked:
    """Tell URLs from options and their values, as curl itself would."""
    urls: List[str] = []
    options: Set[str] = set()
    left = iter(words)
    for word in left:
        if word == "-" or not word.startswith("-"):
            urls.append(word)
        elif word.startswith("--"):
            options.add(word)
            if takes_value.get(word, False):
                value = next(left, "")
                if word == "--url":
                    urls.append(value)
        else:
            for index in range(1, len(word)):
                option = f"-{word[index]}"
                options.add(option)
                if takes_value.get(option, False):
                    if index + 1 == len(word):
                        next(left, "")
                    break
    return _Asked(urls, options)


def headers(token: TokenCreated, asked: _Asked) -> List[str]:
    """Lines of curl's configuration that show the token. curl keeps `Authorization` from other hosts when it is
    redirected, and other headers not."""
    if asked.options & {"-u", "--user", "-H", "--header", "--oauth2-bearer", "-n", "--netrc"}:
        if asked.options & {"-L", "--location", "--location-trusted"}:
            raise Error(
                "with headers or a user of yours, a redirection could take the token to another host",
                hint="leave out -L, or follow the redirection yourself",
            )
        return [f'header = "Alight-Key: {token.token_id}"', f'header = "Alight-Secret: {token.token_secret}"']
    return [f'header = "Authorization: Bearer {token.token_id}.{token.token_secret}"']


def answers(url: str, one: WebUrl) -> bool:
    """Whether a URL is one of a web function's."""
    asked = _split(url)
    if any((asked.hostname or "") == domain.lower() for domain in one.custom_domains):
        return True
    for mine in (one.url, one.path_url):
        known = _split(mine)
        if _place(asked) != _place(known):
            continue
        path = known.path.rstrip("/")
        if asked.path == path or asked.path.startswith(f"{path}/"):
            return True
    return False


def _wants_token(asked: _Asked) -> bool:
    """Whether all URLs are of web functions here, and one of them is protected."""
    if not asked.urls or asked.options & {"-K", "--config", "--location-trusted"}:
        return False
    open_: Set[str] = set(asked.urls)
    protected = False
    for one in _web_functions():
        for url in asked.urls:
            if answers(url, one):
                open_.discard(url)
                protected = protected or one.requires_proxy_auth
        if not open_:
            break
    if protected and open_:
        url = min(open_)
        print(
            f"No token is sent: {url} is no web function of this server, and curl would show it there", file=sys.stderr
        )
        return False
    return protected


def _web_functions() -> Iterator[WebUrl]:
    """Of all apps that live, those of the environment in force first."""
    first = session.environment(None) or "main"
    named = [one.name for one in session.ask("environment.list", EnvironmentListed(), EnvironmentListed).environments]
    for environment in sorted(named, key=lambda name: name != first):
        request = AppList(environment=environment, limit=1_000_000)
        for app in session.ask("app.list", request, AppListed).apps:
            if app.state != AppState.STOPPED:
                found = session.ask("app.find", AppFind(app.app_id, environment), AppDescribed)
                yield from (web for function in found.functions for web in function.web)


def _to_this_machine(urls: Sequence[str]) -> List[str]:
    """What makes curl find names below localhost, which not every version knows."""
    found = []
    for url in urls:
        parts = _split(url)
        if (parts.hostname or "").endswith(".localhost"):
            found.append(f"{parts.hostname}:{_place(parts)[1]}:127.0.0.1")
    return found


def _run(program: str, words: Sequence[str], settings: Sequence[str]) -> int:
    if not settings:
        return subprocess.run([program, *words], check=False).returncode
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        pipe.write("\n".join(settings) + "\n")  # far less than a pipe holds
    try:
        # Behind the words, for `-q` counts as the first one only.
        command = [program, *words, "--config", f"/dev/fd/{reading}"]
        child = subprocess.Popen(command, pass_fds=(reading,))
    finally:
        os.close(reading)
    try:
        return child.wait()
    except KeyboardInterrupt:
        return child.wait()  # it got the same


def _options(program: str) -> Dict[str, bool]:
    """Of each option of the curl that is here, whether it takes a value."""
    said = subprocess.run([program, "--help", "all"], capture_output=True, text=True, check=False).stdout
    found: Dict[str, bool] = {}
    for line in said.splitlines():
        match = _OPTION.match(line)
        if match:
            short, long, value = match.groups()
            found[long] = bool(value)
            if short:
                found[short] = bool(value)
    if not found.get("--data"):
        raise Error(f"{program} does not say which options it has", hint="use a curl from 7.73 on")
    return found


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        parts.port  # noqa: B018  raises for what is no number
    except ValueError:
        return urlsplit("")
    return parts


def _place(parts: SplitResult) -> Tuple[str, int]:
    host = (parts.hostname or "").lower()
    return ("localhost" if host in {"127.0.0.1", "::1"} else host), parts.port or _PORTS.get(parts.scheme, 0)
