"""What a container cannot do, a test for each row of the table in the documentation; and what a kill leaves behind.

Each test of an attempt looks at the container's own words, so that a refusal for the wrong reason is seen.
"""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from alight.node import cgroups, output
from alight.node.dns import Forwarder, Resolvers
from alight.node.engine.base import Bind, ContainerPlan, EngineError, Limits
from alight.node.engine.oci import OciEngine
from alight.node.network import Names

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
MIB = 1 << 20


class Lab:
    """One engine on an event loop that outlives single tests, and containers in it."""

    def __init__(self, layers: tuple[str, ...], home: Path) -> None:
        self.layers = layers
        self.home = home
        self.loop = asyncio.new_event_loop()
        self.engine = OciEngine(home, str(home))
        self.run(self.engine.open())
        self._count = 0

    def run(self, work):
        return self.loop.run_until_complete(asyncio.wait_for(work, 60))

    def plan(self, *argv: str, **more) -> ContainerPlan:
        self._count += 1
        return ContainerPlan(f"c{self._count}", self.layers, argv, {**ENV, **more.pop("env", {})}, **more)

    def python(self, code: str, **more) -> ContainerPlan:
        return self.plan("python3", "-c", textwrap.dedent(code), **more)

    def ask(self, plan: ContainerPlan) -> str:
        """Everything that a container prints before it ends, with how it ended on the last line."""
        self.run(self.engine.start(plan))
        state = self.run(self.engine.wait(plan.id))
        text = self.printed(plan.id)
        self.run(self.engine.remove(plan.id))
        return f"{text}[{state.exit_code}]"

    def printed(self, container_id: str) -> str:
        path = self.engine.directory(container_id) / "output.log"
        return b"".join(one.data for one in output.read(path)).decode(errors="replace")

    def started(self, plan: ContainerPlan, word: str = "up"):
        """A running container that has said the word."""

        async def main():
            state = await self.engine.start(plan)
            while word not in self.printed(plan.id):
                assert (await self.engine.list())[-1].status == "running", self.printed(plan.id)
                await asyncio.sleep(0.01)
            return state

        return self.run(main())

    def close(self) -> None:
        self.run(self.engine.shutdown())
        self.loop.close()


@pytest.fixture
def short_home():
    home = Path(tempfile.mkdtemp(prefix="alight-"))
    yield home
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def lab(base_layers):
    home = Path(tempfile.mkdtemp(prefix="alight-"))
    lab = Lab(base_layers, home)
    yield lab
    lab.close()
    shutil.rmtree(home)


SYSCALL = """
import ctypes, os, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    print(name, "worked" if result >= 0 else errno.errorcode[ctypes.get_errno()])
"""


def attempt(lab, code: str, **more) -> str:
    return lab.ask(lab.python(SYSCALL + textwrap.dedent(code), **more))


def test_mount_is_refused(lab):
    assert attempt(lab, 'call("mount", b"none", b"/mnt", b"tmpfs", 0, None); call("umount2", b"/proc", 2)') == (
        "mount EPERM\numount2 EPERM\n[0]"
    )


def test_new_namespaces_are_refused(lab):
    text = attempt(
        lab,
        """
        call("unshare", 0x10000000)
        call("setns", os.open("/proc/self/ns/net", os.O_RDONLY), 0)
        call("syscall", 56, 0x10000000 | 17, 0, 0, 0, 0)
        """,
    )
    assert text == "unshare EPERM\nsetns EPERM\nsyscall ENOSYS\n[0]"


def test_devices_cannot_be_made(lab):
    assert attempt(lab, 'call("mknod", b"/tmp/disk", 0o60600, os.makedev(254, 0))') == "mknod EPERM\n[0]"


def test_kernel_keys_and_programs_are_refused(lab):
    text = attempt(lab, 'call("syscall", 250, 0, 0, 0, 0); call("syscall", 321, 0, 0, 0); call("syscall", 425, 1, 0)')
    # keyctl, bpf; io_uring_setup is one that the list does not know, so that programs take their older way
    assert text == "syscall EPERM\nsyscall EPERM\nsyscall ENOSYS\n[0]"


def test_the_hypervisors_sockets_are_refused(lab):
    assert (
        attempt(lab, 'call("socket", 40, 1, 0); call("socket", 2, 1, 0)') == "socket EAFNOSUPPORT\nsocket worked\n[0]"
    )


def test_the_kernels_settings_cannot_be_written(lab):
    code = """
        for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/sys/kernel/profiling"):
            try:
                open(path, "w")
                print("opened", path)
            except OSError as error:
                print(error.strerror)
    """
    assert lab.ask(lab.python(code)) == "Read-only file system\n" * 3 + "[0]"


def test_what_tells_of_the_host_is_masked(lab):
    code = """
        import os
        for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts"):
            print(len(open(path).read()) if os.path.exists(path) else 0)
        print(os.listdir("/sys/firmware"), os.listdir("/proc/acpi") if os.path.exists("/proc/acpi") else [])
    """
    assert lab.ask(lab.python(code)) == "0\n" * 4 + "[] []\n[0]"


def test_privileges_are_the_default_set_and_cannot_grow(lab):
    text = lab.ask(lab.plan("grep", "-E", "^(Cap|NoNewPrivs|Seccomp:)", "/proc/self/status"))
    fields = dict(line.split(":\t") for line in text.splitlines() if ":" in line)
    assert fields["CapEff"] == fields["CapBnd"] == fields["CapPrm"] == "00000000a00425fb"
    assert fields["CapAmb"] == fields["CapInh"] == "0" * 16
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def test_other_processes_are_not_seen(lab):
    text = lab.ask(lab.python("import os; print([one for one in os.listdir('/proc') if one.isdigit()], os.getpid())"))
    assert text == "['1'] 1\n[0]"


def test_no_descriptor_of_the_node_is_inherited(lab):
    code = "import os; print(sorted(os.listdir('/proc/self/fd'))[:4], os.readlink('/proc/self/fd/0'))"
    text = lab.ask(lab.python(code))
    assert text == "['0', '1', '2', '3'] /dev/null\n[0]"


def test_default_signal_handling_is_handed_on(lab):
    # Python itself ignores SIGPIPE, and its children would inherit that.
    assert "SigIgn:\t0000000000000000" in lab.ask(lab.plan("grep", "SigIgn", "/proc/self/status"))


def test_writes_stay_in_the_container(lab):
    target = Path(lab.layers[0])
    before = sorted(os.listdir(target))
    assert lab.ask(lab.plan("sh", "-c", "echo x > /new && rm /etc/debian_version && ls /new")) == "/new\n[0]"
    assert sorted(os.listdir(target)) == before
    text = lab.ask(lab.plan("sh", "-c", "ls /new; cat /etc/debian_version >/dev/null && echo kept"))
    assert text.endswith("kept\n[0]")


def test_a_read_only_bind_cannot_be_written(lab, tmp_path):
    (tmp_path / "file").write_text("x")
    binds = (Bind(str(tmp_path), "/given"),)
    text = lab.ask(lab.plan("sh", "-c", "cat /given/file; echo y > /given/file", binds=binds))
    assert "Read-only file system" in text
    binds = (Bind(str(tmp_path), "/given", readonly=False),)
    lab.ask(lab.plan("sh", "-c", "echo y > /given/file", binds=binds))
    assert (tmp_path / "file").read_text() == "y\n"


def test_a_kept_layer_holds_what_the_step_wrote_and_nothing_else(lab, tmp_path):
    upper = tmp_path / "upper"
    lab.ask(
        lab.plan(
            "sh",
            "-c",
            "echo x > /srv/made; rm /etc/debian_version",
            upper=str(upper),
            binds=(
                Bind(str(tmp_path), "/opt/deep/target"),
                Bind("/etc/hostname", "/opt/other/file"),
            ),
        )
    )
    found = {str(one.relative_to(upper)) for one in upper.rglob("*")}
    assert found == {"srv", "srv/made", "etc", "etc/debian_version"}
    assert (upper / "etc/debian_version").is_char_device()
    upper.rename(tmp_path / "layer")


def test_shared_memory_has_its_size(lab):
    text = lab.ask(lab.plan("df", "--output=size", "-k", "/dev/shm", limits=Limits(shm_bytes=32 * MIB)))
    assert text.split()[1] == "32768"


def test_more_layers_than_a_page_of_options(lab, tmp_path):
    layers = []
    for one in range(60):
        layer = tmp_path / ("long-" * 20) / f"{one}:a,b"
        layer.mkdir(parents=True)
        (layer / f"f{one}").touch()
        layers.append(str(layer))
    plan = lab.plan("sh", "-c", "ls / | grep -c '^f[0-9]'")
    plan = ContainerPlan(plan.id, (*layers, *lab.layers), plan.argv, plan.env)
    assert lab.ask(plan) == "60\n[0]"


# Limits


def test_processes_are_bounded(lab):
    code = """
        import os, time
        made = 0
        try:
            for _ in range(200):
                if os.fork() == 0:
                    time.sleep(60)
                made += 1
        except OSError as error:
            print("stopped", made < 60, error.strerror)
    """
    assert "stopped True Resource temporarily unavailable" in lab.ask(lab.python(code, limits=Limits(pids=60)))


def test_too_much_memory_is_reported_as_such(lab):
    plan = lab.python("print('up', flush=True); x = b'x' * (400 << 20)", limits=Limits(memory_bytes=64 * MIB))
    lab.run(lab.engine.start(plan))
    state = lab.run(lab.engine.wait(plan.id))
    assert (state.oom_killed, state.signal) == (True, signal.SIGKILL)
    assert lab.run(lab.engine.stats(plan.id)).memory_peak_bytes >= 60 * MIB
    lab.run(lab.engine.remove(plan.id))


def test_a_child_out_of_memory_is_not_blamed_on_one_that_goes_on(lab):
    code = """
        import subprocess, sys
        done = subprocess.run([sys.executable, "-c", "x = b'x' * (400 << 20)"])
        print(done.returncode)
    """
    plan = lab.python(code, limits=Limits(memory_bytes=64 * MIB))
    lab.run(lab.engine.start(plan))
    state = lab.run(lab.engine.wait(plan.id))
    assert (lab.printed(plan.id), state.exit_code, state.oom_killed) == ("-9\n", 0, False)
    lab.run(lab.engine.remove(plan.id))


def test_cpu_time_is_bounded_when_asked(lab):
    code = "import time; t = time.monotonic(); c = time.process_time()\nwhile time.monotonic() < t + 1: pass\n"
    code += "print(time.process_time() - c)"
    text = lab.ask(lab.plan("python3", "-c", code, limits=Limits(cpu_quota=0.2)))
    assert float(text.split("[")[0]) < 0.5


# Network

CONNECT = """
import socket, sys
def reach(address, port, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as one:
        one.settimeout(3)
        try:
            one.connect((address, port))
            if kind == socket.SOCK_DGRAM:
                one.send(b"x"); one.send(b"x"); print("sent", one.recv(10))
            else:
                print("reached")
        except OSError as error:
            print(type(error).__name__, error.strerror)
"""
REFUSED = ("ConnectionRefusedError", "No route to host", "OSError")


def serving(lab) -> tuple[str, str]:
    """A container that serves port 8000 on every address, and its address."""
    plan = lab.python(
        """
        import socket
        probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        probe.connect(("192.0.2.1", 9))
        listener = socket.create_server(("0.0.0.0", 8000))
        print("up", probe.getsockname()[0], flush=True)
        while True:
            listener.accept()[0].send(b"hi")
        """
    )
    lab.started(plan)
    return plan.id, lab.printed(plan.id).split()[1]


def test_another_container_cannot_be_reached(lab):
    other, address = serving(lab)
    text = lab.ask(lab.python(f"{CONNECT}\nreach('{address}', 8000)"))
    assert "reached" not in text
    assert any(word in text for word in REFUSED)
    # It was there all the time: the node reaches it through a socket of its own network.
    with lab.run(lab.engine.netns_socket(other, socket.AF_INET, socket.SOCK_STREAM)) as ours:
        ours.settimeout(5)
        ours.connect(("127.0.0.1", 8000))
        assert ours.recv(2) == b"hi"
    lab.run(lab.engine.remove(other))


def host_addresses() -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.77", 9))
        return [probe.getsockname()[0]]


def test_ports_of_the_host_cannot_be_reached(lab):
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        plan = lab.python(
            f"""
            import subprocess
            {CONNECT.replace(chr(10), chr(10) + " " * 12)}
            routes = [one.split() for one in open("/proc/net/route")]
            gateway = next(bytes.fromhex(one[2])[::-1] for one in routes if one[1] == "00000000")
            reach(socket.inet_ntoa(gateway), {port})
            for one in {host_addresses()!r}:
                reach(one, {port})
            """
        )
        text = lab.ask(plan)
    assert "reached" not in text
    assert text.count("\n") == 2
    assert text.count("ConnectionRefused") + text.count("No route") + text.count("unreachable") == 2


def test_the_metadata_address_cannot_be_reached(lab):
    started = time.monotonic()
    text = lab.ask(lab.python(f"{CONNECT}\nreach('169.254.169.254', 80)"))
    assert "reached" not in text
    assert "imed" not in text, "it should be refused, not run into a timeout"
    assert time.monotonic() - started < 3


def dropped(lab) -> int:
    """How many packets of this instance were dropped for their sender."""
    table = Names.of(str(lab.home)).table
    listing = subprocess.run(
        ["nft", "list", "chain", "inet", table, "origin"], capture_output=True, text=True, check=True
    )
    return int(listing.stdout.partition("counter packets ")[2].split()[0])


def test_a_forged_sender_is_dropped(lab):
    before = dropped(lab)
    code = """
        import socket
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        head = bytes.fromhex("4500001c0001000040110000")
        for sender in "10.1.2.3", "127.0.0.1", "192.0.2.1":
            addresses = socket.inet_aton(sender) + socket.inet_aton("192.0.2.77")
            raw.sendto(head + addresses + bytes.fromhex("0035003500080000"), ("192.0.2.77", 0))
    """
    assert lab.ask(lab.python(code)) == "[0]"
    assert dropped(lab) >= before + 2


def test_without_a_network_there_is_loopback_only(lab):
    code = """
        import os, socket
        print(sorted(os.listdir("/sys/class/net")), open("/etc/resolv.conf").read() == "")
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
            print("itself")
    """
    plan = lab.python(textwrap.dedent(code) + CONNECT + "\nreach('192.0.2.1', 53)", network="none")
    text = lab.ask(plan)
    assert text.startswith("['lo'] True\nitself\n")
    assert "Network is unreachable" in text


def test_a_name_is_resolved(lab):
    """Over UDP and TCP, by a resolver of the host that only the host can reach."""

    async def main():
        answers = _FakeResolver()
        port = await answers.start()
        config = lab.home / "resolv.conf"
        config.write_text("nameserver 127.0.0.1\n")
        plan = lab.python(
            """
            import socket, struct
            print(socket.gethostbyname("anything.example"), flush=True)
            question = bytes.fromhex("beef01000001000000000000") + b"\\x01a\\x00\\x00\\x01\\x00\\x01"
            with socket.create_connection(("127.0.0.53", 53)) as tcp:
                tcp.send(struct.pack("!H", len(question)) + question)
                tcp.recv(2); print(tcp.recv(500)[:2].hex())
            """
        )
        await lab.engine.start(plan)
        sockets = await lab.engine.dns_sockets(plan.id)
        assert sockets is not None
        forwarder = Forwarder(*sockets, Resolvers(str(config), port))
        await forwarder.start()
        state = await lab.engine.wait(plan.id)
        await forwarder.close()
        await answers.close()
        text = lab.printed(plan.id)
        await lab.engine.remove(plan.id)
        return state.exit_code, text

    assert lab.run(main()) == (0, "203.0.113.7\nbeef\n")


def test_a_package_index_is_reached(lab):
    """The way out, by whatever index this machine's pip is configured for."""
    index = next((one for one in indexes() if urlsplit(one).scheme in {"http", "https"}), None)
    if index is None:
        pytest.skip("pip on this machine uses no index over the network")
    parts = urlsplit(index)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]

    async def main():
        plan = lab.python(
            f"""
            import socket
            with socket.create_connection(({parts.hostname!r}, {port}), 20):
                print("reached")
            """
        )
        await lab.engine.start(plan)
        sockets = await lab.engine.dns_sockets(plan.id)
        forwarder = Forwarder(*sockets, Resolvers())
        await forwarder.start()
        await lab.engine.wait(plan.id)
        await forwarder.close()
        text = lab.printed(plan.id)
        await lab.engine.remove(plan.id)
        return text

    try:
        socket.create_connection((parts.hostname, port), 5).close()
    except OSError:
        pytest.skip("the index does not answer the host either")
    assert lab.run(main()) == "reached\n"


def indexes() -> list[str]:
    found = [
        os.environ[name] for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL") if name in os.environ
    ]
    for path in (Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf"):
        parser = configparser.ConfigParser(interpolation=None)
        with contextlib.suppress(configparser.Error):
            parser.read(path)
        for key in ("index-url", "extra-index-url"):
            found += parser.get("global", key, fallback="").split()
    return [*found, "https://pypi.org/simple"]


class _FakeResolver:
    """Answers every question with 203.0.113.7."""

    async def start(self) -> int:
        loop = asyncio.get_running_loop()
        outer = self

        class Datagrams(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport

            def datagram_received(self, data, addr):
                self.transport.sendto(outer.answer(data), addr)

        self.udp, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
        port = self.udp.get_extra_info("sockname")[1]
        self.tcp = await asyncio.start_server(self._stream, "127.0.0.1", port)
        return port

    async def close(self) -> None:
        self.udp.close()
        self.tcp.close()

    async def _stream(self, reader, writer):
        length = int.from_bytes(await reader.readexactly(2), "big")
        answer = self.answer(await reader.readexactly(length))
        writer.write(len(answer).to_bytes(2, "big") + answer)
        await writer.drain()
        writer.close()

    def answer(self, question: bytes) -> bytes:
        body = question[12 : question.index(0, 12) + 5]
        record = bytes.fromhex("c00c000100010000003c0004") + socket.inet_aton("203.0.113.7")
        return question[:2] + bytes.fromhex("81800001000100000000") + body + record


# Kills


def leftovers(home: Path) -> list[str]:
    """What an instance still has on the machine, in words."""
    names = Names.of(str(home))
    found = [f"group {one}" for tree in cgroups.trees() for one in [f"{tree}{names.group}"] if os.path.exists(one)]
    found += [f"device {name}" for _, name in socket.if_nameindex() if name.startswith(names.prefix)]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    found += ["table"] if names.table in tables else []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if str(home).encode() in line:
                found.append(f"process {line!r}")
            if str(home) in Path(f"/proc/{pid}/mountinfo").read_text():
                found.append(f"mount in {pid}")
    return found


def until(check, seconds: float = 10.0):
    end = time.monotonic() + seconds
    while True:
        value = check()
        if not value or time.monotonic() > end:
            return value
        time.sleep(0.02)


def test_a_killed_spawner_leaves_nothing_and_is_replaced(base_layers, short_home):
    lab = Lab(base_layers, short_home)
    plans = [lab.plan("sh", "-c", "echo up; sleep 1000 & exec sleep 1000") for _ in range(3)]
    pids = [lab.started(one).pid for one in plans]
    spawner = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
    assert b"spawner" in Path(f"/proc/{spawner}/cmdline").read_bytes()
    os.kill(spawner, signal.SIGKILL)

    states = [lab.run(lab.engine.wait(one.id)) for one in plans]
    assert {(one.status, one.signal) for one in states} == {("exited", signal.SIGKILL)}
    assert all("killed" in one.error for one in states)
    assert not until(lambda: [one for one in pids if os.path.exists(f"/proc/{one}")])
    # The engine goes on with a new one.
    assert lab.ask(lab.plan("echo", "again")) == "again\n[0]"
    for one in plans:
        assert lab.printed(one.id) == "up\n"
        lab.run(lab.engine.remove(one.id))
    lab.close()
    assert not until(lambda: leftovers(short_home))


AGENT = """
import asyncio, pathlib, sys
from alight.node.engine.base import ContainerPlan
from alight.node.engine.oci import OciEngine

async def main():
    home, layers = pathlib.Path(sys.argv[1]), tuple(sys.argv[2:])
    engine = OciEngine(home, str(home))
    await engine.open()
    script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.005; done; exit 42"
    await engine.start(ContainerPlan("lines", layers, ("sh", "-c", script), {"PATH": "/usr/bin:/bin"}))
    await engine.start(ContainerPlan("stays", layers, ("sleep", "1000"), {"PATH": "/usr/bin:/bin"}))
    print("started", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def kill_an_agent(base_layers, home: Path) -> None:
    source = str(Path(sys.modules["alight"].__file__).parents[1])
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, home, *base_layers],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source},
    )
    with agent.stdout:
        assert agent.stdout.readline() == b"started\n"
        agent.kill()
        agent.wait()


def test_a_killed_agent_loses_no_line_and_no_exit_code(base_layers, short_home):
    kill_an_agent(base_layers, short_home)
    time.sleep(0.5)
    lab = Lab(base_layers, short_home)
    states = {one.id: one for one in lab.run(lab.engine.list())}
    assert set(states) == {"lines", "stays"}
    assert states["stays"].status == "running"
    assert lab.run(lab.engine.wait("lines")).exit_code == 42
    assert lab.printed("lines") == "".join(f"line {one}\n" for one in range(300))
    lab.close()
    assert not until(lambda: leftovers(short_home))


def test_agent_and_spawner_killed_together_leave_nothing(base_layers, short_home):
    kill_an_agent(base_layers, short_home)
    for line in (short_home / "log" / "spawner.log").read_text().splitlines():
        if "spawner" in line and "ready" in line:
            os.kill(int(line.partition("spawner ")[2].split()[0]), signal.SIGKILL)
    lab = Lab(base_layers, short_home)
    states = {one.id: one for one in lab.run(lab.engine.list())}
    assert states["stays"].signal == signal.SIGKILL
    assert not lab.run(lab.engine.inside("stays"))
    lab.close()
    assert not until(lambda: leftovers(short_home))


def test_two_instances_live_side_by_side(lab, base_layers, short_home):
    other = Lab(base_layers, short_home)
    mine, address = serving(lab)
    theirs, other_address = serving(other)
    assert address.rpartition(".")[0].rpartition(".")[0] != other_address.rpartition(".")[0].rpartition(".")[0]
    text = other.ask(other.python(f"{CONNECT}\nreach('{address}', 8000)"))
    assert "reached" not in text
    other.close()
    assert not until(lambda: leftovers(short_home))
    # The first one's network is as it was.
    text = lab.ask(lab.python(f"{CONNECT}\nreach('{other_address}', 8000)"))
    assert "[0]" in text
    lab.run(lab.engine.remove(mine))
    assert theirs


def test_a_full_disk_neither_blocks_nor_ends_anything(base_layers):
    """Output is lost, counted and told; the exit code is not lost."""
    home = Path(tempfile.mkdtemp(prefix="alight-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", home], check=True)
    try:
        lab = Lab(base_layers, home)
        plan = lab.plan("sh", "-c", "head -c 6000000 /dev/zero; echo up; sleep 1; echo after; exit 3")
        lab.run(lab.engine.start(plan))
        deadline = time.monotonic() + 10
        while (home / "node/containers" / plan.id / "output.log").stat().st_size < 2 * MIB:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)
        subprocess.run(["mount", "-o", "remount,size=64m", home], check=True)
        state = lab.run(lab.engine.wait(plan.id))
        assert state.exit_code == 3
        text = lab.printed(plan.id)
        assert "bytes of output were lost: no room on the disk" in text
        assert text.endswith("after\n")
        lab.close()
    finally:
        subprocess.run(["umount", home], check=True)
        home.rmdir()


def test_an_agent_that_asks_nonsense_harms_nobody(lab):
    client = lab.engine._client
    with pytest.raises(EngineError, match="understand"):
        lab.run(client.ask("start", nonsense=1))
    with pytest.raises(EngineError, match="understand"):
        lab.run(client.ask("no such command"))
    assert lab.ask(lab.plan("echo", "fine")) == "fine\n[0]"
