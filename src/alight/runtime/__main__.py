"""The first thing that runs in a container: `python /opt/alight/lib/alight/runtime/__main__.py`.

With the argument `template` it becomes what containers are forked from (decision 0012).

As pid 1 it forks at once: the parent becomes the init, the child serves. Elsewhere (the process engine) it serves.
It must not import anything before the fork but what the interpreter has already, and must leave `sys.path` as the
user's code expects it: Alight's own directory last, this file's directory not at all.
"""

import os
import sys


def _own_package() -> str:
    """Make `alight` importable from beside this file, whatever the image holds. Returns the library directory."""
    here = os.path.dirname(os.path.realpath(__file__))
    library = os.path.dirname(os.path.dirname(here))
    # As a script the interpreter put this directory first; a user's `import link` would find our module there.
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry or ".") not in {here, library}]
    sys.path.insert(0, library)
    import alight  # noqa: F401, PLC0415  from here on its submodules are found through the package, not through sys.path

    sys.path.remove(library)
    sys.path.append(library)
    return library


def main() -> None:
    """Serve until told to stop; exits the process, which is ours alone."""
    library = _own_package()
    home = ""
    if sys.argv[1:] == ["template"]:
        from alight.runtime import init, template  # noqa: PLC0415  after the path is right

        sys.exit(template.main(library, init.HOME))
    if os.getpid() == 1:
        from alight.runtime import init  # noqa: PLC0415  after the path is right

        init.split()
        home = init.HOME
    from alight.runtime import serve  # noqa: PLC0415  after the fork: the init stays small

    sys.exit(serve.main(library, home))


if __name__ == "__main__":
    main()
