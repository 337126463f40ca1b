"""Files stay small enough to be read at one sitting."""

from __future__ import annotations

import warnings

from tests.shape import tree

SECOND_LOOK, TOO_LONG = 400, 600


def test_no_file_is_longer_than_a_sitting():
    lengths = {str(file.relative_to(tree.SOURCE)): len(file.read_text().splitlines()) for file in tree.files()}
    long = {name: lines for name, lines in sorted(lengths.items()) if lines > SECOND_LOOK}
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        if long:
            warnings.warn(f"over {SECOND_LOOK} lines, each wants a second look: {long}", stacklevel=1)
    assert not {name: lines for name, lines in long.items() if lines > TOO_LONG}


def test_every_file_says_why_it_exists():
    silent = [
        str(file.relative_to(tree.SOURCE))
        for file in tree.files()
        if file.read_text().strip() and not tree.ast.get_docstring(tree.parsed(file))
    ]
    assert not silent, f"module docstrings are missing: {silent}"


def test_no_file_is_a_drawer():
    drawers = {"utils", "util", "common", "helpers", "misc", "base_impl"}
    found = [str(file.relative_to(tree.SOURCE)) for file in tree.files() if drawers & {*file.with_suffix("").parts}]
    assert not found, f"name them after what is in them: {found}"
