"""The public face: every name that a user's script may type is there, by the facts in surface.json."""

from __future__ import annotations

import pytest

import alight
from tests.shape import surface

OURS = {"__version__"}  # names that the API we follow does not have


@pytest.fixture(scope="module")
def found() -> surface.Survey:
    return surface.survey()


def test_the_public_list_is_sorted_and_complete():
    assert list(alight.__all__) == sorted(alight.__all__)
    assert set(surface.public_names()) <= set(alight.__all__)


def test_everything_on_the_list_loads():
    for name in alight.__all__:
        assert getattr(alight, name) is not None
    assert set(alight.__all__) <= set(dir(alight))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nosuchname"):
        alight.nosuchname  # noqa: B018  looking is the test


def test_every_name_exists(found):
    assert not found.missing, f"{len(found.missing)} names are missing: {found.missing}"


def test_every_parameter_can_be_passed(found):
    assert not found.missing_parameters, f"{len(found.missing_parameters)} are missing: {found.missing_parameters}"


def test_every_verb_has_its_async_twin(found):
    assert not found.missing_aio, f"{len(found.missing_aio)} lack .aio: {found.missing_aio}"


def test_the_survey_can_tell_what_does_not_work():
    """A count that cannot go down is worth nothing."""
    from alight.sdk.surface import unimplemented
    from alight.wire.errors import UnimplementedError

    @unimplemented("later")
    def registered(x: int) -> int: ...

    def raising() -> None:
        """Says so."""
        raise UnimplementedError("not yet")

    def working() -> int:
        return 1

    assert surface._is_unimplemented(registered)
    assert surface._is_unimplemented(raising)
    assert not surface._is_unimplemented(working)
    assert surface._lacking(registered, (surface.Parameter("y", "any", deprecated=False),)) == ["y"]
