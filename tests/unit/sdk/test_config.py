"""Settings: environment over profile over default, and a file that only its owner can read."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from alight.sdk import config
from alight.wire import ambient
from alight.wire.errors import InvalidError


def test_without_anything_defaults_hold():
    loaded = config.load()
    assert loaded["server_url"] == ""
    assert loaded["async_warnings"] is True
    assert loaded.sources == {}


def test_environment_wins_over_profile_wins_over_default(monkeypatch):
    config.store_profile("work", {"server_url": "https://box:9009", "environment": "dev", "traceback": True})
    assert config.load()["server_url"] == "https://box:9009"
    assert config.load()["traceback"] is True
    monkeypatch.setenv("ALIGHT_ENVIRONMENT", "prod")
    loaded = config.load()
    assert loaded.environment == "prod"
    assert loaded.sources["environment"] == "ALIGHT_ENVIRONMENT"
    assert loaded.sources["server_url"] == "profile work"


def test_the_older_name_counts_where_scripts_set_it_and_never_for_keys(monkeypatch):
    monkeypatch.setenv("MODAL_ENVIRONMENT", "old")
    monkeypatch.setenv("MODAL_TOKEN_ID", "ak-theirs")
    assert config.load().environment == "old"
    assert config.load()["token_id"] == ""
    monkeypatch.setenv("ALIGHT_ENVIRONMENT", "new")
    assert config.load().environment == "new"


def test_the_file_is_private_and_replaced_whole():
    config.store_profile("one", {"token_id": "ak-1", "token_secret": 'quo"te\\d é'})
    config.store_profile("two", {"server_url": "https://x"})
    file = Path(config.path())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.glob("alight.toml?*")) == []
    profiles = config.read_profiles()
    assert profiles["one"] == {"token_id": "ak-1", "token_secret": 'quo"te\\d é'}
    assert profiles["two"]["active"] is True
    config.activate_profile("one")
    assert config.load().profile == "one"


def test_two_active_profiles_are_an_error():
    config.path().write_text("[a]\nactive = true\n[b]\nactive = true\n")
    with pytest.raises(InvalidError, match="more than one active profile: a, b"):
        config.load()


def test_a_profile_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("ALIGHT_PROFILE", "nope")
    with pytest.raises(InvalidError, match="nope"):
        config.load()
    with pytest.raises(InvalidError, match="no profile"):
        config.activate_profile("nope")


def test_a_broken_file_and_a_broken_value_say_where():
    config.path().write_text("[a\n")
    with pytest.raises(InvalidError, match="not valid TOML"):
        config.load()
    config.path().write_text('[a]\nactive = true\ntraceback = "perhaps"\n')
    with pytest.raises(InvalidError, match="neither true nor false"):
        config.load()


def test_containers_ignore_the_file(monkeypatch):
    config.store_profile("work", {"server_url": "https://box:9009"})
    monkeypatch.setenv("ALIGHT_IS_REMOTE", "1")
    assert config.load()["server_url"] == ""
    monkeypatch.delenv("ALIGHT_IS_REMOTE")
    monkeypatch.setattr(ambient, "container", object())
    assert config.load()["server_url"] == ""


def test_the_small_parser_reads_what_the_writer_wrote_and_what_people_write():
    text = config._render({"a b": {"s": 'x"y\n', "t": True, "n": 3}, "c": {"f": 1.5}})
    assert config._parse_flat(text) == config._parse(text)
    people = "# mine\n[work] # here\nserver_url = 'https://x' # there\n\"active\" = true\nn = 1_000\n"
    assert config._parse_flat(people) == config._parse(people)
    with pytest.raises(ValueError, match="line 2"):
        config._parse_flat("[a]\nx = [1, 2]\n")
