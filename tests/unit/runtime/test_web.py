"""Web functions in their container: ASGI applications, their lifespan, disconnects, the end."""

from __future__ import annotations

import json

PLAIN = """
    import asyncio, json
    from alight import current_input_id
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            return
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        said = {key: str(value) for key, value in scope.items()}
        said["body"] = body.decode()
        said["input"] = current_input_id()
        await send({"type": "http.response.start", "status": 201, "headers": [(b"X-Kind", b"plain")]})
        await send({"type": "http.response.body", "body": json.dumps(said).encode()})
    def f():
        return app
"""


def test_a_request_reaches_the_application_and_its_answer_comes_in_one_frame(serve):
    gateway = serve(PLAIN)
    answer = gateway.get("/a%20b/c", query="x=1", root="/_/main/app/f", name="rq-seven", headers={"a": "1"})
    assert (answer.status, answer.headers, answer.frames) == (201, {"x-kind": "plain"}, ["RESPONSE"])
    said = json.loads(answer.body)
    assert said["path"] == "/_/main/app/f/a b/c"
    assert said["root_path"] == "/_/main/app/f"
    assert said["raw_path"] == "b'/_/main/app/f/a%20b/c'"
    assert said["query_string"] == "b'x=1'"
    assert said["headers"] == "[(b'a', b'1')]"
    assert said["client"] == "('192.0.2.1', 4711)"
    assert said["server"] == "('example.localhost', 9080)"
    assert (said["scheme"], said["method"], said["http_version"]) == ("http", "GET", "1.1")
    assert said["input"] == "rq-seven"
