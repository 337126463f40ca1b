# shellcheck shell=bash
# Shared set-up of `scripts/demo` and `scripts/test`: the system's packages, then a virtual environment in `.venv`.
#
# Both scripts may be run again at any time: what is there already is left alone. Nothing here reads or changes the
# host's configuration; its package index, proxy and certificate settings hold, because pip and apt-get are asked.
# Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

say() { printf '%s\n' "$*" >&2; }

# fail SENTENCE [HINT]
fail() {
  say "error: $1"
  if [ -n "${2:-}" ]; then say "hint: $2"; fi
  exit 1
}

# set_up run|dev [PROGRAM:PACKAGE…]: everything that `alight run` needs on one machine, and the packages of those
# programs; `dev` adds the tools that judge the code.
set_up() {
  [ "$(uname -s)" = Linux ] || fail "this script needs Linux, and this is $(uname -s)" "on other systems Alight is a client: pip install ."
  local kind=$1
  shift
  if ! has_python || ! has_certificates; then
    ensure_packages "$@"
    ensure_venv "$kind"
    return
  fi
  # Each waits for something else. It is apt-get that goes on when somebody interrupts: it should not end half-way.
  local packages status=0
  (ensure_packages "$@") &
  packages=$!
  (ensure_venv "$kind") || status=$?
  wait "$packages" || status=$?
  if [ $status != 0 ]; then exit $status; fi
}

ensure_packages() {
  local missing=() wanted
  has_python || missing+=(python3 python3-venv)
  has_command runc || has_command crun || missing+=(runc)
  has_command mmdebstrap || missing+=(mmdebstrap)
  has_command nft || missing+=(nftables)
  has_certificates || missing+=(ca-certificates)
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
  for wanted in "$@"; do has_command "${wanted%%:*}" || missing+=("${wanted##*:}"); done
  if [ ${#missing[@]} -gt 0 ]; then
    install_packages "${missing[@]}" || fail "the system's packages could not be installed" "apt-get's own words are above"
  fi
  if ! has_python; then
    # Ubuntu 22.04's python3 is 3.10; its archive has 3.11 beside it.
    install_packages python3.11 python3.11-venv || true
    has_python || fail "no Python 3.11 or newer with venv was found" "install one and name it: ALIGHT_PYTHON=/path/to/python3.12 $0"
  fi
}

# The system's own tools live in sbin, which is not on every user's PATH.
has_command() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

install_packages() {
  has_command apt-get || fail "these are missing and there is no apt-get to install them: $*" "install them with this system's package manager, then run this again"
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    has_command sudo || fail "these are missing and need root to install: $*" "run this as root"
    as_root=(sudo)
  fi
  say "installing $*"
  local quiet=(-qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120)
  # The package lists of a fresh machine are empty or old; a list that is good enough saves the update.
  apt_install "$@" >/dev/null 2>&1 && return
  local words
  words=$("${as_root[@]}" apt-get "${quiet[@]}" update 2>&1 && apt_install "$@" 2>&1) && return
  printf '%s\n' "$words" | tail -n 20 >&2
  return 1
}

apt_install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "${quiet[@]}" install -y --no-install-recommends "$@" </dev/null
}

has_certificates() { [ -e /etc/ssl/certs/ca-certificates.crt ]; }

has_python() { [ -n "$(find_python)" ]; }

# The first Python >= 3.11 that can make a virtual environment.
find_python() {
  local candidate
  for candidate in ${ALIGHT_PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14; do
    if has_command "$candidate" && "$candidate" -c '
import sys, venv, ensurepip
sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
}

# ensure_venv run|dev: installs again only when the requirements, the interpreter or the place have changed.
ensure_venv() {
  local kind=$1 python stamp
  python=$(find_python)
  [ -n "$python" ] || fail "no Python 3.11 or newer with venv was found" "install one and name it: ALIGHT_PYTHON=/path/to/python3.12 $0"
  stamp=$("$python" -V; echo "$ROOT"; cat "$ROOT/pyproject.toml")
  stamp=$(printf '%s' "$stamp" | sha256sum | cut -c1-64)
  if [ "$(cat "$VENV/$kind.stamp" 2>/dev/null)" = "$stamp" ] && "$VENV/bin/python" -c 'import alight' 2>/dev/null; then
    return
  fi
  say "installing Alight into .venv"
  "$python" -m venv --clear "$VENV"
  local requirements=(-e "$ROOT")
  if [ "$kind" = dev ]; then
    # What is never imported needs no compiling, and of the tools that is most.
    requirements=(--no-compile "${requirements[@]}")
    mapfile -t -O 3 requirements < <(requirements_of dev)
  fi
  local log=$VENV/install.log
  if ! "$VENV/bin/python" -m pip install "${requirements[@]}" </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    fail "the Python packages could not be installed" "pip's own words are above; it uses this machine's pip configuration"
  fi
  printf '%s' "$stamp" >"$VENV/run.stamp"
  if [ "$kind" = dev ]; then printf '%s' "$stamp" >"$VENV/dev.stamp"; fi
}

# requirements_of GROUP: the packages of a group of pyproject.toml, one a line.
requirements_of() {
  "$(find_python)" - "$ROOT/pyproject.toml" "$1" <<'PYTHON'
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    print(*tomllib.load(file)["dependency-groups"][sys.argv[2]], sep="\n")
PYTHON
}

# Chromium and what drives it. Where there is none to install, the tests that need them are skipped and say so.
ensure_browser() {
  local wanted
  has_command chromium || has_command chromium-browser || has_command google-chrome ||
    install_packages chromium || say "no chromium: the tests that need a browser will be skipped"
  "$VENV/bin/python" -c 'import playwright' 2>/dev/null && return
  mapfile -t wanted < <(requirements_of browser)
  "$VENV/bin/python" -m pip install -q "${wanted[@]}" </dev/null ||
    say "no playwright: the tests that need a browser will be skipped"
}

# With sudo, what the tools wrote into the checkout belongs to the one who called.
give_back() {
  if [ -n "${SUDO_UID:-}" ] && [ "$(id -u)" = 0 ]; then
    local path
    for path in .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis; do
      if [ -e "$ROOT/$path" ]; then chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$ROOT/$path"; fi
    done
  fi
}
