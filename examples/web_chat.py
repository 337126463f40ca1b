"""A chat server that speaks OpenAI's protocol, streaming included, so that its client libraries work with it.

There is no model in it: it answers with the words it was given, one at a time. Put yours where `words` are made.

    alight deploy examples/web_chat.py
    curl http://web-chat-serve.localhost:9080/v1/chat/completions -H 'Content-Type: application/json' \
         -d '{"model": "echo", "stream": true, "messages": [{"role": "user", "content": "hello there"}]}'
"""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import alight

app = alight.App("web-chat")
MODEL = "echo"
PORT = 8000


@app.function()
@alight.concurrent(max_inputs=50)
@alight.web_server(PORT, startup_timeout=30)
def serve():
    """The function starts the server and returns; the server goes on in a thread of its own."""
    import threading

    threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", PORT), Chat).serve_forever, daemon=True).start()


class Chat(BaseHTTPRequestHandler):
    """Enough of the protocol for chat: the list of models, and completions whole or in pieces."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._answer({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "you", "created": 0}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = asked["messages"][-1]["content"].split()
        if not asked.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._answer({**self._envelope("chat.completion"), "choices": [choice]})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, word in enumerate(words):
            delta = {"role": "assistant", "content": word if number == 0 else f" {word}"}
            self._event({"index": 0, "delta": delta, "finish_reason": None})
            time.sleep(0.02)  # as a model would take
        self._event({"index": 0, "delta": {}, "finish_reason": "stop"})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _envelope(self, kind):
        return {"id": "chatcmpl-1", "object": kind, "created": int(time.time()), "model": MODEL}

    def _event(self, choice):
        event = {**self._envelope("chat.completion.chunk"), "choices": [choice]}
        self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        print(*words)
