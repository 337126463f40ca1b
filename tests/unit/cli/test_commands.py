"""Protects what commands ask of a server and what they print, with a server that only writes down what it was asked."""

from __future__ import annotations

import io
import json
import signal
import stat
import time

import pytest

from alight.cli import app, interrupts, main, session, tables, terminal, volume_transfer
from alight.cli.server import follow_lines
from alight.cli.service import units
from alight.wire.admission import TokenCreated
from alight.wire.codec import dumps_head
from alight.wire.errors import AlreadyExistsError, NotFoundError
from alight.wire.messages import AppListed
from alight.wire.stored import SecretInfo, SecretListed, VolumeFile, VolumeFiles, VolumeInfo, VolumeListed
from alight.wire.transfers import Uploaded


class Server:
    """Answers by method, in order of asking, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked = []
        self.answers = {}

    def ask(self, method, request, reply):
        self.asked.append((method, request))
        answer = self.answers[method]
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, reply)
        return answer

    def tell(self, method, request):
        self.asked.append((method, request))
        if isinstance(self.answers.get(method), Exception):
            raise self.answers[method]

    def stream(self, method, request):
        self.asked.append((method, request))
        yield from self.answers[method](request)

    def send(self, method, request, pieces):
        body = b"".join(pieces)
        self.asked.append((method, request, body))
        if isinstance(self.answers.get(method), Exception):
            raise self.answers[method]

    def requests(self, method):
        return [one[1:] if len(one) > 2 else one[1] for one in self.asked if one[0] == method]


@pytest.fixture
def server(monkeypatch):
    made = Server()
    for name in ("ask", "tell", "stream", "send"):
        monkeypatch.setattr(session, name, getattr(made, name))
    made.answers["volume.ensure"] = VolumeInfo("vo-1", "data", "main")
    return made


# volumes


TREE = {"/runs": None, "/runs/a.txt": b"aaa", "/runs/deep": None, "/runs/deep/b.bin": b"\x00\xff", "/c.txt": b"c"}


def serve_files(server, monkeypatch):
    def files(request):
        root = "/" + request.path.strip("/")
        inside = [
            VolumeFile(path, "directory" if content is None else "file", len(content or b""))
            for path, content in TREE.items()
            if (path == root and content is not None) or path.startswith(root.rstrip("/") + "/")
        ]
        if not inside:
            raise NotFoundError(f"there is no file {request.path}")
        yield dumps_head(VolumeFiles(tuple(inside))), b""

    def read(request):
        for byte in TREE["/" + request.path.strip("/")]:
            yield b"", bytes([byte])

    def fetch(volume_id, targets, on_bytes):
        del volume_id, on_bytes
        for target in targets:
            target.path.write_bytes(TREE["/" + target.file.path])
        return []

    server.answers["volume.files"] = files
    server.answers["volume.read"] = read
    monkeypatch.setattr(volume_transfer, "fetch_files", fetch)


@pytest.fixture
def sent(monkeypatch):
    """What was put, as (path, content, mode)."""
    found = []

    def send(volume_id, items, *, force, on_bytes):
        del volume_id, force, on_bytes
        found.extend((item.path, item.source.read_bytes(), item.source.stat().st_mode) for item in items)
        return Uploaded(len(items), len(items))

    monkeypatch.setattr(volume_transfer, "send_files", send)
    return found


def test_a_directory_is_fetched_whole(server, tmp_path, monkeypatch):
    serve_files(server, monkeypatch)
    assert main.run(["volume", "get", "data", "/runs", str(tmp_path)]) == 0
    assert (tmp_path / "runs/a.txt").read_bytes() == b"aaa"
    assert (tmp_path / "runs/deep/b.bin").read_bytes() == b"\x00\xff"
    assert not list(tmp_path.rglob(".*"))


def test_a_file_is_fetched_under_its_name_or_another(server, tmp_path, monkeypatch):
    serve_files(server, monkeypatch)
    assert main.run(["volume", "get", "data", "c.txt", str(tmp_path)]) == 0
    assert main.run(["volume", "get", "data", "c.txt", str(tmp_path / "other")]) == 0
    assert (tmp_path / "c.txt").read_bytes() == (tmp_path / "other").read_bytes() == b"c"


def test_a_file_to_standard_output_is_nothing_but_the_file(server, capfdbinary, monkeypatch):
    serve_files(server, monkeypatch)
    assert main.run(["volume", "get", "data", "/runs/deep/b.bin", "-"]) == 0
    assert capfdbinary.readouterr().out == b"\x00\xff"


def test_what_exists_here_is_not_replaced_unless_forced(server, tmp_path, capsys, monkeypatch):
    serve_files(server, monkeypatch)
    (tmp_path / "c.txt").write_text("mine")
    assert main.run(["volume", "get", "data", "c.txt", str(tmp_path)]) == 1
    assert "--force" in capsys.readouterr().err
    assert (tmp_path / "c.txt").read_text() == "mine"
    assert main.run(["volume", "get", "--force", "data", "c.txt", str(tmp_path)]) == 0
    assert (tmp_path / "c.txt").read_text() == "c"


def test_what_cannot_be_fetched_is_said_and_the_rest_is_there(server, tmp_path, capsys, monkeypatch):
    serve_files(server, monkeypatch)
    fetch = volume_transfer.fetch_files

    def fails(volume_id, targets, on_bytes):
        targets[0].failed = "the volume has no 'runs/a.txt'"
        fetch(volume_id, targets[1:], on_bytes)
        return targets[:1]

    monkeypatch.setattr(volume_transfer, "fetch_files", fails)
    assert main.run(["volume", "get", "data", "/runs", str(tmp_path)]) == 1
    assert "runs/a.txt: the volume has no" in capsys.readouterr().err
    assert (tmp_path / "runs/deep/b.bin").exists()


def test_patterns_are_fetched_listed_and_removed(server, tmp_path, capsys, monkeypatch):
    serve_files(server, monkeypatch)
    server.answers["volume.remove"] = None
    assert main.run(["volume", "ls", "data", "/runs/*"]) == 0
    assert capsys.readouterr().out.splitlines() == ["runs/a.txt", "runs/deep"]
    assert main.run(["volume", "get", "data", "**/*.[bt]*", str(tmp_path / "new")]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.txt", "b.bin", "c.txt"]
    assert main.run(["volume", "rm", "data", "runs/a*", "c.txt"]) == 0
    assert [request.path for request in server.requests("volume.remove")] == ["runs/a.txt", "c.txt"]
    assert main.run(["volume", "rm", "data", "*.nope"]) == 1
    assert "nothing in the volume matches '*.nope'" in capsys.readouterr().err


def test_standard_input_is_put_under_a_name(server, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"said")))
    server.answers["volume.write"] = VolumeFile("x", "file")
    assert main.run(["volume", "put", "data", "-", "x"]) == 0
    assert [body for _, body in server.requests("volume.write")] == [b"said"]
    assert main.run(["volume", "put", "data", "-", "d/"]) == 2
    assert "needs a name" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(server, tmp_path, monkeypatch, capsys):
    (tmp_path / "f").write_text("F")

    def stops(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(volume_transfer, "send_files", stops)
    assert main.run(["volume", "put", "data", str(tmp_path / "f"), "x"]) == 130
    said = capsys.readouterr().err
    assert f"alight volume put data {tmp_path / 'f'} x" in said
    assert "nothing has changed in the volume" in said


def test_the_old_name_does_the_same_and_says_so(server, capsys, monkeypatch):
    serve_files(server, monkeypatch)
    assert main.run(["nfs", "ls", "data", "/runs/*"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["runs/a.txt", "runs/deep"]
    assert "write `alight volume`" in captured.err


@pytest.mark.parametrize(
    ("remote", "paths"),
    [("/", ["/a", "/sub/b"]), ("/x", ["/x/a", "/x/sub/b"]), ("/x/", ["/x/local/a", "/x/local/sub/b"])],
)
def test_a_directory_is_put_where_the_slash_says(server, sent, tmp_path, remote, paths):
    local = tmp_path / "local"
    (local / "sub").mkdir(parents=True)
    (local / "a").write_text("A")
    (local / "sub" / "b").write_text("B")
    (local / "a").chmod(0o755)
    assert main.run(["volume", "put", "data", str(local), remote]) == 0
    assert [(f"/{path}", content) for path, content, _ in sent] == list(zip(paths, [b"A", b"B"]))
    assert stat.S_IMODE(sent[0][2]) == 0o755


@pytest.mark.parametrize(("remote", "path"), [("/", "/f"), ("/x", "/x"), ("/x/", "/x/f"), ("x/y", "/x/y")])
def test_a_file_is_put_where_the_slash_says(server, sent, tmp_path, remote, path):
    (tmp_path / "f").write_text("F")
    assert main.run(["volume", "put", "data", str(tmp_path / "f"), remote]) == 0
    assert f"/{sent[0][0]}" == path


def test_what_exists_there_has_a_hint(server, tmp_path, capsys, monkeypatch):
    (tmp_path / "f").write_text("F")

    def refuses(*args, **more):
        raise AlreadyExistsError("/f exists")

    monkeypatch.setattr(volume_transfer, "send_files", refuses)
    assert main.run(["volume", "put", "data", str(tmp_path / "f")]) == 1
    assert capsys.readouterr().err.endswith("Error: /f exists\nhint: --force replaces it\n")


def test_a_missing_local_file_is_a_wrong_command(server, tmp_path, capsys):
    assert main.run(["volume", "put", "data", str(tmp_path / "absent")]) == 2
    assert not server.asked


def test_paths_alone_in_a_pipe(server, capsys, monkeypatch):
    serve_files(server, monkeypatch)
    assert main.run(["volume", "ls", "data"]) == 0
    assert capsys.readouterr().out.splitlines() == ["runs", "runs/a.txt", "runs/deep", "runs/deep/b.bin", "c.txt"], (
        "as they come: a million names are not kept to be sorted"
    )


def test_names_that_break_the_rules_never_reach_the_server(server, capsys):
    assert main.run(["volume", "create", "no/slash"]) == 1
    assert "1 to 64 characters" in capsys.readouterr().err
    assert not server.asked


def test_json_has_the_columns_as_keys(server, capsys):
    server.answers["volume.list"] = VolumeListed(
        (
            VolumeInfo("vo-1", "data", "main", 0.0, size=5, files=1, mounted=("app.f",)),
            VolumeInfo("vo-2", "new", "main"),
        )
    )
    assert main.run(["volume", "list", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first == {
        "name": "data", "created_at": None, "size": 5, "files": 1, "last_commit": None, "mounted_by": ["app.f"],
        "limit": None,
    }  # fmt: skip
    assert second["size"] is None, "no machine has said it"
    assert main.run(["volume", "list"]) == 0
    assert "app.f" in capsys.readouterr().out


# secrets


def test_secrets_are_sent_and_not_shown(server, capsys):
    server.answers["secret.create"] = SecretInfo("st-1", "wandb", "main")
    assert main.run(["secret", "create", "wandb", "KEY=hunter2", "EMPTY="]) == 0
    (request,) = server.requests("secret.create")
    assert request.values == {"KEY": "hunter2", "EMPTY": ""}
    assert "hunter2" not in "".join(capsys.readouterr())


def test_secrets_of_files(server, tmp_path):
    server.answers["secret.create"] = SecretInfo("st-1", "s", "main")
    (tmp_path / ".env").write_text("A=1\n# no\nB='two words'\n")
    (tmp_path / "values.json").write_text('{"A": "1"}')
    assert main.run(["secret", "create", "s", "--from-dotenv", str(tmp_path / ".env")]) == 0
    assert main.run(["secret", "create", "s", "--from-json", str(tmp_path / "values.json")]) == 0
    assert [request.values for request in server.requests("secret.create")] == [
        {"A": "1", "B": "two words"},
        {"A": "1"},
    ]


def test_deleting_asks_where_somebody_can_answer(server, capsys):
    assert main.run(["secret", "delete", "s"]) == 1
    assert "--yes" in capsys.readouterr().err
    assert not server.asked
    assert main.run(["secret", "delete", "--yes", "s"]) == 0
    assert server.requests("secret.delete")[0].name == "s"


def test_an_empty_list_is_said_to_people_only(server, capsys):
    server.answers["secret.list"] = SecretListed()
    assert main.run(["secret", "list"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "alight secret create" in err


# apps


def test_an_unknown_app(server, capsys):
    server.answers["app.list"] = AppListed()
    assert main.run(["app", "stop", "--yes", "nope"]) == 1
    assert "there is no app 'nope'" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "ago"), [("2h 30m", 9000), ("1d", 86400), ("10s", 10), ("1d2h", 93600)])
def test_how_long_ago(text, ago):
    assert app.parse_when(text, 100000.0) == 100000.0 - ago


def test_a_moment_and_nonsense(capsys):
    assert app.parse_when("1970-01-02", 0.0) == time.mktime((1970, 1, 2, 0, 0, 0, 0, 0, -1))
    assert main.run(["app", "logs", "x", "--since", "yesterdayish"]) == 2


def test_tokens_are_printed_as_settings(server, capsys):
    server.answers["token.create"] = TokenCreated("ak-1", "as-2")
    assert main.run(["token", "new"]) == 0
    assert capsys.readouterr().out == "export ALIGHT_TOKEN_ID=ak-1\nexport ALIGHT_TOKEN_SECRET=as-2\n"


# this machine


def test_uninstall_leaves_strangers_alone(monkeypatch, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    monkeypatch.setenv("ALIGHT_HOME", str(tmp_path))
    assert main.run(["uninstall", "--yes"]) == 1
    assert "does not look like" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()


def test_uninstall_leaves_nothing(monkeypatch, tmp_path):
    home = tmp_path / "home"
    for name in ("server/blobs", "node/layers", "run", "log", "cache"):
        (home / name).mkdir(parents=True)
    config = tmp_path / "alight.toml"
    config.write_text("[default]\nenvironment = 'x'\n")
    monkeypatch.setenv("ALIGHT_HOME", str(home))
    monkeypatch.setenv("ALIGHT_CONFIG_PATH", str(config))
    assert main.run(["uninstall", "--yes"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_uninstall_keeps_volumes_when_asked(monkeypatch, tmp_path):
    home = tmp_path / "home"
    for name in ("server", "node/layers", "node/volumes/vo-1/data"):
        (home / name).mkdir(parents=True)
    monkeypatch.setenv("ALIGHT_HOME", str(home))
    assert main.run(["uninstall", "--yes", "--keep-volumes"]) == 0
    assert sorted(str(path.relative_to(home)) for path in home.rglob("*")) == [
        "node",
        "node/volumes",
        "node/volumes/vo-1",
        "node/volumes/vo-1/data",
    ]


def test_logs_of_the_server(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("ALIGHT_HOME", str(tmp_path))
    assert main.run(["server", "logs"]) == 1
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "node.log").write_text("one\ntwo\nthree\n")
    assert main.run(["server", "logs", "--of", "node", "-n", "2"]) == 0
    assert capsys.readouterr().out == "two\nthree\n"


def append(path, text):
    with path.open("a") as file:
        file.write(text)


def test_a_followed_log_survives_rotation(tmp_path, monkeypatch):
    path = tmp_path / "server.log"
    path.write_text("old\n")
    steps = iter(
        [
            lambda: append(path, "new\n"),
            lambda: path.rename(tmp_path / "server.log.1"),
            lambda: path.write_text("rotated\n"),
        ]
    )
    monkeypatch.setattr(time, "sleep", lambda _: next(steps)())
    lines = follow_lines(path, 10, follow=True)
    assert [next(lines) for _ in range(3)] == ["old", "new", "rotated"]
    lines.close()


def test_services_run_this_python_in_this_home(tmp_path):
    made = units(tmp_path, "0.0.0.0:9009")
    assert f"-m alight.server --home {tmp_path} --listen 0.0.0.0:9009" in made["alight-server.service"]
    assert f"--server unix:{tmp_path}/run/server.sock" in made["alight-node.service"]
    assert "KillMode=process" in made["alight-node.service"]


def test_profiles(monkeypatch, tmp_path, capsys):
    config = tmp_path / "alight.toml"
    config.write_text('[a]\nactive = true\nserver_url = "https://a:1"\n[b]\nserver_url = "https://b:2"\n')
    monkeypatch.setenv("ALIGHT_CONFIG_PATH", str(config))
    assert main.run(["profile", "activate", "b"]) == 0
    assert main.run(["profile", "current"]) == 0
    assert capsys.readouterr().out == "b\n"
    assert main.run(["profile", "activate", "c"]) == 1


def test_the_tokens_secret_is_hidden(monkeypatch, capsys):
    monkeypatch.setenv("ALIGHT_TOKEN_SECRET", "as-hunter2")
    assert main.run(["config", "show"]) == 0
    assert "hunter2" not in capsys.readouterr().out
    assert main.run(["config", "show", "--no-redact", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["token_secret"] == "as-hunter2"


# tables


def test_tables_in_pipes_are_aligned_and_clean(capsys):
    tables.show(("Name", "Size"), [("a\x1b[2J", 1), ("long name", 22)], as_json=False)
    assert capsys.readouterr().out == "Name       Size\na          1\nlong name  22\n"


def test_tables_for_people_hold_every_cell(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "is_terminal", lambda stream: True)
    tables.show(("Name", "Size"), [("data", 1)], as_json=False)
    text = capsys.readouterr().out
    assert "Name" in text
    assert "data" in text


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (65, "1 min 5 s"), (3700, "1 h 1 min"), (90000, "1 d 1 h")])
def test_durations(seconds, text):
    assert tables.duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(5, "5 B"), (2048, "2.0 KiB"), (3 << 30, "3.0 GiB")])
def test_sizes(count, text):
    assert tables.size(count) == text


# interrupts


def test_presses_that_follow_each_other_are_one(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: clock[0])
    with interrupts.handled() as presses:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        clock[0] = interrupts.TOGETHER / 2
        signal.raise_signal(signal.SIGINT)
        clock[0] = interrupts.TOGETHER
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert presses.count == 2


def test_a_polite_kill_leaves_with_its_status():
    with interrupts.handled(), pytest.raises(SystemExit) as caught:
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
