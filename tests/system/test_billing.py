"""What runs cost, from the command line: their last line, reports, and a budget that holds them until it is raised."""

from __future__ import annotations

import csv
import io
import json
import re
import textwrap
import time

import pytest

SCRIPT = """
    import time
    import alight

    app = alight.App("costly", tags={"team": "a"})

    @app.function(cpu=0.5, memory=128)
    def burn(seconds: float = 1.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass
        return "burnt"

    @app.function(gpu="A100", max_containers=1)
    def train(seconds: float = 1.0):
        time.sleep(seconds)
        return seconds

    @app.function()
    def bad():
        raise ValueError("no")

    @app.local_entrypoint()
    def many():
        print("trained", sum(train.map([1.0] * 4)))
"""


@pytest.fixture(scope="module")
def machine(new_machine):
    made = new_machine()
    made.run("server", "start", "--fake-gpus", "A100-40GB:2")
    return made


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    file = tmp_path_factory.mktemp("costs") / "costly.py"
    file.write_text(textwrap.dedent(SCRIPT))
    return file


def last_line(done):
    return next(line for line in done.stderr.splitlines() if "Finished in" in line)


def test_a_run_ends_with_what_it_cost_and_reports_have_it(machine, script):
    assert " of 1 CPU, < $0.01" in last_line(machine.run("run", f"{script}::burn"))
    done = last_line(machine.run("run", f"{script}::train", "--seconds", "2"))
    assert " on 1 \u00d7 A100-40GB, < $0.01" in done

    (first, *_) = rows = list(csv.DictReader(io.StringIO(machine.run(
        "billing", "report", "--for", "7 days", "-t", "team", "--by", "app", "--csv").stdout)))  # fmt: skip
    assert {row["description"] for row in rows} == {"costly"}
    assert first["team"] == "a"
    assert float(first["cost"]) > 0
    assert float(first["idle"]) >= 0
    resources = json.loads(machine.run("billing", "report", "--show-resources", "--json").stdout)
    assert {one["resource"] for one in resources} >= {"cpu", "memory", "gpu:A100-40GB"}
    assert "A100-40GB" in machine.run("billing", "summary").stdout
    assert json.loads(machine.run("environment", "billing", "summary", "--json").stdout)["cost"] > 0
    assert "Nothing in other ran" in machine.run("environment", "billing", "report", "other").stderr

    (call, *_) = machine.json("call", "list", "--limit", "1")
    shown = machine.run("call", "show", call["call_id"]).stdout
    assert "of A100-40GB" in shown
    failed = machine.run("run", f"{script}::bad", status=1).stderr
    assert re.search(r"Failed after [\d.]+ s: [\d.]+ s of 1 CPU, < \$0.01\n(.|\n)*ValueError: no", failed)


def test_python_sees_the_same(machine, script, tmp_path):
    machine.run("run", f"{script}::burn")
    ask = tmp_path / "ask.py"
    ask.write_text(
        textwrap.dedent("""
        from datetime import datetime, timedelta, timezone
        import alight

        since = datetime.now(timezone.utc) - timedelta(days=2)
        for billing in (alight.Workspace.from_context().billing, alight.Environment.from_name("main").billing):
            items = billing.report(start=since, resolution="h", tag_names=["team"])
            assert {one.description for one in items} == {"costly"} and items[0].tags == {"team": "a"}
            assert sum(one.cost for one in items) > 0 and items[0]["cost"] == items[0].cost
            summary = billing.summary()
            assert summary.metered_cost == sum(summary.metered_cost_breakdown.values())
            try:
                billing.summary("soon")
            except alight.exception.InvalidError as error:
                assert "is no month" in str(error)
            else:
                raise AssertionError
        print(alight.Workspace.from_context().billing.rates()["cpu"])
    """)
    )
    assert "'unit': 'core-hour'" in machine.python(ask).stdout


def test_prices_are_the_owners(machine, script):
    file = machine.home / "prices.toml"
    assert str(file) in machine.run("billing", "rates").stderr
    try:
        file.write_text('currency = "EUR"\n[gpu_hour]\n"A100-40GB" = "1/s"\n')
        assert "3600 " in machine.run("billing", "rates").stdout
        assert "€" in last_line(machine.run("run", f"{script}::train"))
        file.write_text("cpu_hours = 3\n")
        done = machine.run("billing", "rates", status=1)
        assert f"{file}, line 1: there is no 'cpu_hours'" in done.stderr
        assert "known are currency, cpu_core_hour" in done.stderr
    finally:
        file.unlink()


@pytest.mark.slow
def test_a_budget_holds_a_run_until_it_is_raised(machine, script):
    run = machine.start("run", "--max-gpu-seconds", "1", f"{script}::many")
    try:
        (budget,) = until(lambda: [one for one in machine.json("billing", "budget") if one["used_up"]])
        (call,) = until(lambda: machine.json("call", "list", "--state", "waiting"))
        why = machine.run("call", "show", call["call_id"]).stdout
        held = "the budget of this run (1 GPU-seconds) is used up; raise it with `alight app budget"
        assert f"{held} {budget['name']} --gpu-seconds" in why
        assert run.poll() is None
        machine.run("app", "budget", budget["name"], "--gpu-seconds", "1000")
        output, errors = run.communicate(timeout=100)
        assert "trained 4.0" in output
        assert "the budget of this run" in errors
    finally:
        run.kill()
        run.communicate()


def until(look, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("it did not come")
