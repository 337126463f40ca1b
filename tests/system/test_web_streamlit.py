"""Protects pages of Streamlit behind `web_server`: a browser loads one, and what it draws came over its WebSocket."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "web_streamlit.py"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser is installed")
def test_a_browser_loads_a_streamlit_page(machine, tmp_path):
    said = machine.run("deploy", EXAMPLE).stdout
    try:
        url = re.search(r"page => (http://\S+)", said).group(1)
        seen, until = "", time.monotonic() + 120
        # Its clock for scripts runs ahead of the world's while a socket waits: another look has more of it.
        while "The square of 12 is 144." not in seen and time.monotonic() < until:
            words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
            words += ["--virtual-time-budget=20000", "--dump-dom", url]
            seen = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout
        assert "The square of 12 is 144." in seen
    finally:
        machine.run("app", "stop", "streamlit-page", "--yes")
