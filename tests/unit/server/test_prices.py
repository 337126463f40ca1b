"""Prices: what their file may say, what of it is an error and where, and what amounts cost by them."""

from __future__ import annotations

import pytest

from alight.server import costs, prices
from alight.server.costs import Prices, cost_by_state, cost_of
from alight.wire import errors


def test_without_a_file_the_defaults_hold(tmp_path):
    found = prices.load(tmp_path)
    assert (found.currency, found.gpu_hour("A100-40GB"), found.gpu_hour("T4")) == ("USD", 2.5, 0.59)
    assert found.gpu_hour("a10") == 1.10
    assert found.gpu_hour("RTX-4090") is None


def test_the_example_is_understood():
    found = prices.parse(prices.EXAMPLE)
    assert found.gpu_hour("a100-40gb") == 2.5
    assert found.gpu_hour("H100") == 4.0  # what is not there keeps its default
    assert found.gpu_hour("B300") == 1.0
    assert found.gpu_hour("rtx 4090") == pytest.approx(1800 / (4 * 8766) + 0.35 * 0.30)
    machine = 6000 / (5 * 8766) + 0.2 * 0.30
    assert found.core_hour == pytest.approx(machine / 64)
    assert found.gib_hour == pytest.approx(machine / 256)


@pytest.mark.parametrize(
    ("text", "price"), [('"2.50/h"', 2.5), ('"60 / day"', 2.5), ('"0.0007/s"', 2.52), ("3", 3.0), ('"0.05/min"', 3.0)]
)
def test_rates_have_units(text, price):
    assert prices.parse(f"[gpu_hour]\nH100 = {text}").gpu_hour("H100") == pytest.approx(price)


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("cpu_core_hours = 1", "line 1: there is no 'cpu_core_hours'", "did you mean cpu_core_hour?"),
        ("\nwages = 1", "line 2: there is no 'wages'", "known are currency, cpu_core_hour"),
        ('cpu_core_hour = "1/kWh"', "line 1: cpu_core_hour has the unit '/kWh'", "known units are /s"),
        ("kwh = '0.3/h'", "kwh has the unit '/h'", "known units are /kWh"),
        ("[gpu_hour]\nT4 = 1\nH100 = '4 parsecs'", "line 3: gpu_hour.H100 has the unit 'parsecs'", "/hour"),
        ("[gpu_hour]\nH100 = 'much'", "line 2: gpu_hour.H100 = 'much' is no number", ""),
        ("[gpu_hour]\nH100 = -1", "line 2: gpu_hour.H100 = -1 is not 0 or more", ""),
        ("[gpu_hour]\nH100 = inf", "line 2: gpu_hour.H100 = inf is not 0 or more", ""),
        ("[gpu_hour]\nH100 = true", "line 2: gpu_hour.H100 = True is no number", ""),
        ("gpu_hour = 3", "line 1: gpu_hour is no table", "write [gpu_hour]"),
        ("currency = 'dollars'", "line 1: currency 'dollars'", "EUR"),
        ("currency = 3", "line 1: currency 3", ""),
        ("[own.gpu.H100]\nprice = 30000\nlifetime = 4", 'line 3: own.gpu."H100".lifetime = 4 has no unit', "years"),
        ("[own.gpu.H100]\nprice = 30000\nlifetime = '4 lives'", "has the unit 'lives'", "days"),
        ("[own.gpu.H100]\nprice = 30000", 'own.gpu."H100" needs a price and a lifetime', "4 years"),
        ("[own.gpu.H100]\nprice = '30000 EUR'\nlifetime='4 years'", "has the unit 'EUR'", "it has none"),
        ("[own.gpu.H100]\nprice = 3\nlifetime = '4 years'\nwatts = 700", 'line 4: own.gpu."H100" has watts', "kwh"),
        ("kwh = 1\n[own.gpu.H100]\nprice = 3\nlifetime = '4 y'\nwatts = '7 hp'", "has the unit 'hp'", "W, kW"),
        ("[own.gpu]\nH100 = 3", "own.gpu.H100 is no table", ""),
        ("[own.house]\nprice = 3", "there is no 'house' in [own]", "known are gpu, machine"),
        ("[own.machine]\nprice = 3\nlifetime = '1 year'", "needs its cores and its memory_gib", ""),
        ("[own.machine]\nprize = 3", "line 2: there is no 'prize' in [own.machine]", "did you mean price?"),
        ("cpu_core_hour = = 1", "(at line 1, column", "TOML"),
    ],
)
def test_what_is_not_understood_is_an_error_with_its_line(text, words, hint):
    with pytest.raises(errors.InvalidError) as caught:
        prices.parse(text, "prices.toml")
    assert str(caught.value).startswith("prices.toml")
    assert words in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_a_file_that_is_no_text_is_an_error(tmp_path):
    (tmp_path / prices.FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(errors.InvalidError, match="cannot be read"):
        prices.load(tmp_path)


def test_what_amounts_cost():
    found = cost_of(
        {"cpu": 7200.0, "memory": 3600.0, "gpu:H100": 1800.0, "energy": 3.6e6, "container": 9.0}, Prices(kwh=0.3)
    )
    assert found.by_resource == pytest.approx({"cpu": 0.10, "memory": 0.01, "gpu:H100": 2.0, "energy": 0.3})
    assert found.total == pytest.approx(2.41)


def test_idle_and_starting_are_parts_of_the_cost_and_what_has_no_price_is_said():
    rows = [("gpu:T4", "busy", 3600.0), ("gpu:T4", "idle", 7200.0), ("cpu", "starting", 3600.0), ("gpu:X", "busy", 1.0)]
    found = cost_by_state(rows, Prices())
    assert found.total == pytest.approx(0.59 * 3 + 0.05)
    assert (found.idle, found.starting) == pytest.approx((1.18, 0.05))
    assert found.unpriced == ("gpu:X",)
    assert costs.cost_of({"storage": 730.0}, Prices()).total == pytest.approx(0.2)


def test_a_type_of_gpu_has_one_price_however_it_is_written():
    found = prices.parse('[gpu_hour]\nRTX4090 = 1\nA10 = 2\na100 = 3\n"NVIDIA H100 80GB" = 4\n"A100-8OGB" = 5')
    assert [found.gpu_hour(one) for one in ("RTX-4090", "A10", "A10G", "A100-40GB", "H100")] == [1, 2, 2, 3, 4]
    assert found.gpu_hour("A100-80GB") == 3.5
    assert prices.unknown(found) == (
        "A100-8OGB is no type of GPU that Alight knows; did you mean A100-80GB or A100-40GB or A100?",
    )
    assert prices.unknown(prices.parse("")) == ()
