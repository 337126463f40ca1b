"""Steps that install what a project file or a private repository lists: uv, poetry, git over HTTPS.

The scripts get all that varies as arguments, so that nothing of a user's is ever read as shell.
"""

from __future__ import annotations

import shlex

from alight.builder.installs import Command, Indexes
from alight.builder.recipe import Step
from alight.builder.steps import CACHES, LENT

#: Where a uv project's environment lies in an image; its `bin` is first on PATH from then on.
UV_PROJECT = "/.uv"

# A lock names files by their address on pypi.org. Where this machine has an index of its own, the same versions (and
# hashes) come from there; a lock with indexes of its own is taken at its word.
_UV_SYNC = """\
set -e
python="$1"; own_index="$2"; frozen="$3"; shift 3
mkdir -p /.uv
cp "$0"/* /.uv/
cd /.uv
pypi='"https://(pypi.org/simple|files.pythonhosted.org)'
if [ "$frozen" = frozen ] && [ -n "$own_index" ] \\
    && ! grep -Eo '(registry|git|url) = "[^"]*"' uv.lock | grep -Ev "$pypi" | grep -q .; then
  uv venv -q --python "$python" .venv
  uv export -q --frozen --no-emit-workspace "$@" -o "$TMPDIR/locked.txt"
  exec uv pip install --python .venv/bin/python --compile-bytecode --no-deps -r "$TMPDIR/locked.txt"
fi
if [ "$frozen" = frozen ]; then set -- --frozen "$@"; fi
exec uv sync --python "$python" --no-install-workspace --compile-bytecode "$@"
"""

# poetry itself stays outside the image: its own dependencies would be mixed with the project's.
_POETRY = """\
set -e
python="$1"; version="$2"; lock="$3"; shift 3
uv venv -q --python "$python" "$TMPDIR/poetry"
uv pip install -q --python "$TMPDIR/poetry/bin/python" "poetry$version" poetry-plugin-export
mkdir "$TMPDIR/project"
cp "$0"/* "$TMPDIR/project/"
cd "$TMPDIR/project"
export POETRY_VIRTUALENVS_CREATE=false POETRY_CACHE_DIR="$TMPDIR/poetry-cache" POETRY_CONFIG_DIR="$TMPDIR/poetry-config"
poetry="$TMPDIR/poetry/bin/poetry"
if [ "$lock" = lock ]; then "$poetry" lock -n; fi
"$poetry" export -n -f requirements.txt -o locked.txt "$@"
exec uv pip install --python "$python" --compile-bytecode --no-deps -r locked.txt
"""

# git asks this for a user and a password, so that neither is ever an argument or in an address.
_ASKPASS = """\
#!/bin/sh
case "$1" in
  *sername*) printf '%s\\n' "$GIT_ASKPASS_USER" ;;
  *gitlab*) printf '%s\\n' "$GITLAB_TOKEN" ;;
  *github*) printf '%s\\n' "$GITHUB_TOKEN" ;;
  *) printf '%s\\n' "${GITHUB_TOKEN:-$GITLAB_TOKEN}" ;;
esac
"""

_PRIVATE = """\
set -e
for name in $1; do
  eval "value=\\${$name:-}"
  if [ -z "$value" ]; then
    echo "$name is not set: put it into a Secret and give it as secrets=[...]" >&2
    exit 1
  fi
done
shift
command -v git >/dev/null || { apt-get -q update && apt-get -q -o Dpkg::Use-Pty=0 install -y git; }
install -m 700 "$0" "$TMPDIR/askpass"
GIT_ASKPASS="$TMPDIR/askpass" exec "$@"
"""


def uv_sync(step: Step, indexes: Indexes, python: str) -> Command:
    """The dependencies of a uv project in an environment of their own, which is the image's Python from then on."""
    what = step.what
    options = [
        *(word for name in what.get("groups", ()) for word in ("--group", name)),
        *(word for name in what.get("extras", ()) for word in ("--extra", name)),
        *shlex.split(what.get("extra_options") or ""),
    ]
    frozen = "frozen" if what.get("frozen") else "lock"
    argv = ("/bin/sh", "-c", _UV_SYNC, f"{LENT}/context", python, indexes.index_url, frozen, *options)
    env = {
        **indexes.joined(what).env(),
        "UV_PROJECT_ENVIRONMENT": f"{UV_PROJECT}/.venv",
        "TMPDIR": f"{CACHES}/temporary",
    }
    return Command(argv, env, facts={"python": f"{UV_PROJECT}/.venv/bin/python", "path": f"{UV_PROJECT}/.venv/bin"})


def poetry_install(step: Step, indexes: Indexes, python: str) -> Command:
    """What a poetry project locks, installed into the image's own Python."""
    what = step.what
    version = str(what.get("version") or "latest")
    wanted = "" if version == "latest" else version if version[:1] in "<>=~!" else f"=={version}"
    options = [
        word for name in ("with", "without", "only") for one in what.get(name, ()) for word in (f"--{name}", one)
    ]
    lock = "as it is" if what.get("frozen") else "lock"
    argv = ("/bin/sh", "-c", _POETRY, f"{LENT}/context", python, wanted, lock, *options)
    return Command(argv, {**indexes.joined(what).env(), "TMPDIR": f"{CACHES}/temporary"})


def pip_private(step: Step, indexes: Indexes, python: str) -> Command:
    """Packages of private repositories ("github.com/owner/name@reference"), with a token that nobody sees."""
    what = step.what
    repositories = list(what["packages"])
    hosts = {name: any(one.startswith(f"{name}.") for one in repositories) for name in ("github", "gitlab")}
    tokens = " ".join(f"{name.upper()}_TOKEN" for name, used in hosts.items() if used)
    pre = ["--prerelease=allow"] if what.get("pre") else []
    install = [
        "uv", "pip", "install", "--python", python, "--compile-bytecode", *pre,
        *shlex.split(what.get("extra_options") or ""), *(f"git+https://{one}" for one in repositories),
    ]  # fmt: skip
    env = {
        **indexes.joined(what).env(),
        "GIT_ASKPASS_USER": str(what.get("git_user") or ""),
        "GIT_TERMINAL_PROMPT": "0",
        "UV_NO_GITHUB_FAST_PATH": "1",  # it knows no tokens
        "TMPDIR": f"{CACHES}/temporary",
    }
    argv = ("/bin/sh", "-c", _PRIVATE, f"{LENT}/askpass", tokens, *install)
    return Command(argv, env, {"askpass": _ASKPASS.encode()})
