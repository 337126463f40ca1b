"""The machine's own package settings reach steps, in the tools' own order, and nothing that a recipe names does."""

from __future__ import annotations

import pytest

from alight.builder import HostConfig
from alight.builder.steps import LENT


@pytest.fixture
def machine(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    write.root = tmp_path
    write.read = lambda **env: HostConfig.read({"HOME": "/home/ada", **env}, tmp_path)
    return write


def test_a_machine_without_settings_lends_none(machine):
    host = machine.read()
    env = host.step_env()
    assert not {"PIP_INDEX_URL", "UV_DEFAULT_INDEX", "SSL_CERT_FILE", "NETRC", "PIP_FIND_LINKS"} & env.keys()
    assert host.step_binds() == ()
    assert set(host.step_files()) == {"apt.conf"}


def test_pip_files_are_read_in_pips_order_and_the_environment_wins(machine):
    machine("etc/pip.conf", "[global]\nindex-url = https://system/simple\ntimeout = 7\ntrusted_host = a b\n")
    machine("home/ada/.config/pip/pip.conf", "[install]\nindex-url = https://user/simple\n")
    assert machine.read().indexes.index_url == "https://user/simple"
    host = machine.read(PIP_INDEX_URL="https://env/simple")
    env = host.step_env()
    assert env["PIP_INDEX_URL"] == env["UV_DEFAULT_INDEX"] == "https://env/simple"
    assert env["PIP_DEFAULT_TIMEOUT"] == env["UV_HTTP_TIMEOUT"] == "7"
    assert env["PIP_TRUSTED_HOST"] == env["UV_INSECURE_HOST"] == "a b"


def test_no_pip_file_is_read_when_the_environment_says_so(machine):
    machine("etc/pip.conf", "[global]\nindex-url = https://system/simple\n")
    assert machine.read(PIP_CONFIG_FILE="/dev/null").indexes.index_url == ""


def test_uv_settings_join_pips(machine):
    machine("etc/pip.conf", "[global]\nextra-index-url =\n  https://one/simple\n  https://two/simple\n")
    machine(
        "home/ada/.config/uv/uv.toml",
        'python-install-mirror = "https://mirror"\n'
        '[[index]]\nurl = "https://default/simple"\ndefault = true\n'
        '[[index]]\nurl = "https://three/simple"\n'
        '[[index]]\nurl = "https://torch/simple"\nexplicit = true\nname = "torch"\n',
    )
    host = machine.read(UV_INDEX_STRATEGY="first-index")
    assert host.indexes.index_url == "https://default/simple"
    assert host.indexes.extra_index_urls == ("https://three/simple", "https://one/simple", "https://two/simple")
    assert host.python_mirror == "https://mirror"
    assert host.step_env()["UV_INDEX_STRATEGY"] == "first-index"


def test_indexes_are_searched_as_pip_does_unless_told_otherwise(machine):
    assert machine.read().step_env()["UV_INDEX_STRATEGY"] == "unsafe-best-match"


def test_local_folders_are_bound_where_they_are_with_the_files_that_their_pages_name(machine):
    root = machine.root
    machine("wheels/six.whl", "")
    machine("index/simple/six/index.html", '<a href="../../files/six.whl#sha256=0">six</a>')
    machine("index/files/six.whl", "")
    machine("index/private/key", "")
    host = machine.read(PIP_FIND_LINKS=f"{root}/wheels", PIP_EXTRA_INDEX_URL=f"file://{root}/index/simple https://x/y")
    bound = {source for source, target, readonly in host.step_binds() if source == target and readonly}
    assert bound == {f"{root}/wheels", f"{root}/index/simple", f"{root}/index/files"}


def test_certificates_constraints_and_netrc_are_lent_as_copies(machine):
    bundle = machine("etc/company.pem", "CERTIFICATE")
    constraint = machine("home/ada/constraints.txt", "numpy<2")
    machine("home/ada/.netrc", "machine index login ada password hidden")
    host = machine.read(SSL_CERT_FILE=bundle, PIP_CONSTRAINT=constraint)
    env, files = host.step_env(), host.step_files()
    for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        assert env[name] == f"{LENT}/ca.pem"
    assert env["UV_CONSTRAINT"] == env["PIP_CONSTRAINT"] == f"{LENT}/constraints-0.txt"
    assert (files["ca.pem"], files["constraints-0.txt"]) == (b"CERTIFICATE", b"numpy<2")
    assert b"hidden" in files[env["NETRC"].removeprefix(f"{LENT}/")]
    assert "hidden" not in str(env)


def test_the_systems_bundle_is_lent_when_nothing_names_one(machine):
    machine("etc/ssl/certs/ca-certificates.crt", "SYSTEM")
    assert machine.read().step_files()["ca.pem"] == b"SYSTEM"


def test_a_bundle_that_is_not_there_is_passed_over(machine):
    assert machine.read(SSL_CERT_FILE="/nowhere/ca.pem").ca_bundle == ""


def test_passwords_are_known_so_that_they_can_be_hidden(machine):
    host = machine.read(PIP_INDEX_URL="https://ada:pass%2Fword@index/simple", UV_INDEX_LAB_PASSWORD="lab-secret")
    assert {"pass%2Fword", "pass/word", "lab-secret"} <= set(host.secrets())


def test_apt_learns_the_proxy_settings_through_a_lent_file_only(machine):
    host = HostConfig(apt_options=(("Acquire::http::Proxy", "http://u:p@proxy"),), apt_auth="machine m login l")
    conf = host.step_files()["apt.conf"].decode()
    assert 'Acquire::http::Proxy "http://u:p@proxy";' in conf
    assert f'Dir::Etc::netrc "{LENT}/apt-auth.conf";' in conf
    assert "u:p" not in str(host.step_env())
