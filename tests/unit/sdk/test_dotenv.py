"""Lines of .env files mean what python-dotenv says that they mean; a bad one is named by its number, never shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alight.sdk.dotenv import parse_dotenv
from alight.wire.errors import InvalidError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A=1 # one\n", {"A": "1"}),
        ("A=a#b\n", {"A": "a#b"}),
        ("A= # nothing\nB=#some\n", {"A": "", "B": "#some"}),
        ("# c\n\n  \nexport B = spaced out \n", {"B": "spaced out"}),
        ('B="x\\ny\\t\\"q\\"" # c\n', {"B": 'x\ny\t"q"'}),
        ("C='raw\\n # no'\n", {"C": "raw\\n # no"}),
        ("C='it\\'s'\n", {"C": "it's"}),
        ('F="two\nlines"\nG=1', {"F": "two\nlines", "G": "1"}),
        ("D=\r\nE=2\rF=3", {"D": "", "E": "2", "F": "3"}),
        ("'a key'=1\n", {"a key": "1"}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("\ufeffA=1\n", {"A": "1"}),
        ("A=1\nB=${A}-${HERE}-${NONE}-${NONE:-d}\n", {"A": "1", "B": "1-here--d"}),
        ("HERE=file\nB=${HERE}\nC='${HERE}'\n", {"HERE": "file", "B": "file", "C": "file"}),
        ("B=$HERE\n", {"B": "$HERE"}),
        (
            'K="-----BEGIN KEY-----\nab+/==\n-----END KEY-----\n"\n',
            {"K": "-----BEGIN KEY-----\nab+/==\n-----END KEY-----\n"},
        ),
    ],
)
def test_lines_are_read_as_python_dotenv_reads_them(text, values):
    assert parse_dotenv(text, {"HERE": "here"}) == values


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("A=1\nhunter2 two\n", 2, "not KEY=value"),
        ("A=1\r\n\r\nhunter2\r\n", 3, "not KEY=value"),
        ("\n\n=hunter2\n", 3, "no name"),
        ('A=1\nB="hunter2\nC=3\n', 2, 'closing "'),
        ("B='hunter2\n", 1, "closing '"),
        ('F="two\nlines"\nB="x" hunter2\n', 3, "closing quote"),
        ("'hunter2=1\n", 1, "not KEY=value"),
        ("export ", 1, "not KEY=value"),
    ],
)
def test_a_bad_line_is_named_by_its_number(text, line, why):
    with pytest.raises(InvalidError, match=f"line {line} of .*{why}") as caught:
        parse_dotenv(text)
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        found = parse_dotenv(text, {})
    except InvalidError:
        return
    assert all(isinstance(value, str) for value in found.values())


@given(st.text(alphabet=st.characters(blacklist_characters='\\"$\0', blacklist_categories=("Cs",)), max_size=60))
def test_a_quoted_value_comes_back_as_it_was(value):
    assert parse_dotenv(f'A="{value}"\n') == {"A": value}
