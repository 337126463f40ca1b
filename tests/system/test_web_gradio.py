"""Protects pages of Gradio behind `web_server`: what it serves, its queue by server-sent events, and its own client."""

from __future__ import annotations

import http.client
import json
import re
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "web_gradio.py"


def fetch(url, data=None):
    """What a page answers. Its name is below localhost, which a resolver may not know."""
    parts = urlsplit(url)
    body = None if data is None else json.dumps(data).encode()
    with closing(http.client.HTTPConnection("127.0.0.1", parts.port, timeout=120)) as connection:
        fields = {"Host": parts.netloc, "Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", parts.path or "/", body, fields)
        answer = connection.getresponse()
        said = answer.read().decode()
        assert answer.status == 200, said
        return said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_gradio_page_serves_browsers_and_its_client(machine):
    said = machine.run("deploy", EXAMPLE, timeout=500).stdout
    try:
        url = re.search(r"page => (http://\S+)", said).group(1).rstrip("/")
        html = fetch(url)
        assert "gradio_config" in html
        for asset in re.findall(r'(?:src|href)="(\.?/?assets/[^"]+)"', html)[:3]:
            assert fetch(f"{url}/{asset.lstrip('./')}")
        begun = json.loads(fetch(f"{url}/gradio_api/call/square", {"data": [12]}))
        events = fetch(f"{url}/gradio_api/call/square/{begun['event_id']}")
        assert "event: complete" in events
        assert json.loads(events.partition("data: ")[2].splitlines()[0]) == [144]
        program = "import alight; print(alight.Function.from_name('gradio-page', 'ask').remote(7))\n"
        (machine.home / "ask.py").write_text(program)
        assert float(machine.python(machine.home / "ask.py").stdout) == 49
    finally:
        machine.run("app", "stop", "gradio-page", "--yes", status=None)
