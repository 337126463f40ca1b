"""What a failed step says to its user: the last lines, no credentials, and the cause where it is known."""

from __future__ import annotations

import pytest

from alight.builder import trouble


def lines(*pieces, secrets=()):
    shown: list[str] = []
    output = trouble.Output(trouble.Redactor(secrets), shown.append)
    for piece in pieces:
        output.feed(piece)
    output.close()
    return shown


def test_pieces_become_lines_wherever_they_are_cut():
    assert lines(b"on", b"e\ntw", b"o\r\n", b"three") == ["one", "two", "three"]


def test_a_progress_bar_is_one_line_and_not_a_hundred():
    assert lines(b"10%\r20%\r30%", b"\r40%\r100%\ndone\n") == ["20%", "100%", "done"]


def test_bytes_that_are_no_text_do_no_harm():
    assert lines(b"\xff\xfe\n") == ["\ufffd\ufffd"]


def test_a_line_without_end_does_not_fill_memory():
    assert sum(map(len, lines(*[b"x" * 50_000] * 4))) == 200_000


def test_secrets_and_credentials_are_hidden():
    shown = lines(b"key=hunter22 https://ada:pw@index/x https://ghp_0123456789@git/y\n", secrets=["hunter22\nother1"])
    assert shown == ["key=**** https://****@index/x https://****@git/y"]


def test_an_ordinary_address_stays():
    assert lines(b"git+ssh://git@github.com/a/b at http://deb.debian.org:80/x\n") == [
        "git+ssh://git@github.com/a/b at http://deb.debian.org:80/x"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Because nosuch was not found in the package registry and you require nosuch", "nosuch does not exist"),
        ("ERROR: No matching distribution found for nosuch==9", "no version of nosuch==9"),
        ("Because there is no version of six==99 and you require six==99", "no version of six==99"),
        (
            "E: Release file for http://deb.debian.org/debian/dists/forky/InRelease is expired (invalid since 14d 2h).",
            "the package list http://deb.debian.org/debian/dists/forky/InRelease is older than it says",
        ),
        ("E: Unable to locate package nosuch", "the Debian package nosuch does not exist"),
        ("E: Package 'nosuch' has no installation candidate", "the Debian package nosuch cannot be installed"),
        ("invalid peer certificate: UnknownIssuer", "certificate was not trusted"),
        ("error: write failed: No space left on device (os error 28)", "no space left"),
        ("dns error: failed to lookup address information", "host name could not be resolved"),
        ("/bin/sh: 1: cargo: not found", "the command cargo is not in the image"),
        ("error: command 'gcc' failed: No such file", "the compiler gcc is not in the image"),
        ("Because torch==1.0 has no wheels with a matching Python ABI tag (e.g., `cp311`)", "no wheel of torch"),
        ("x.whl is not a supported wheel on this platform.", "no wheel of x.whl"),
        ("error: externally-managed-environment", "belongs to its distribution"),
        ("the current Python version (3.11.2) does not satisfy Python>=3.13 and x depends on Python>=3.13", "another"),
        ("bash: ./tool: cannot execute binary file: Exec format error", "another kind of processor"),
        ('Error: building at STEP "RUNN x": Build error: Unknown instruction: "RUNN"', "cannot be read"),
        ('copier: stat: "/nothere": no such file or directory', "/nothere, which is not in the context"),
        ("/srv/run.sh: Permission denied", "/srv/run.sh may not be written or run"),
        ("Error: pg_config executable not found.", "not in the image"),
    ],
)
def test_known_causes_are_explained(text, said):
    error = trouble.step_failed('.pip_install("nosuch")', 1, ["before", text])
    assert said in str(error)
    assert '.pip_install("nosuch")' in str(error)
    assert error.details["tail"] == ["before", text]


@pytest.mark.parametrize(
    ("text", "package"),
    [
        ("src/x.c:1:10: fatal error: ffi.h: No such file or directory", "libffi-dev"),
        ("ImportError: libGL.so.1: cannot open shared object file: No such file or directory", "libgl1"),
        ("/bin/sh: 1: curl: not found", "curl"),
        ("/bin/sh: 1: cmake: not found", "cmake"),
        ("error: command 'x86_64-linux-gnu-gcc' failed: No such file or directory", "build-essential"),
    ],
)
def test_the_debian_package_is_named_where_it_is_known(text, package):
    assert f'.apt_install("{package}")' in (trouble.explain(text)[1] or "")


def test_a_full_disk_explains_a_package_that_was_not_found():
    text = "No space left on device\nNo matching distribution found for six"
    assert "no space left" in trouble.explain(text)[0]


def test_an_unknown_cause_is_left_alone():
    assert str(trouble.step_failed(".run_commands('false')", 1, [])).endswith("failed with exit status 1")
    assert "signal 9" in str(trouble.step_failed(".run_commands('x')", -9, []))
