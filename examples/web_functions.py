"""Four ways to answer requests: a FastAPI route, an ASGI application, a WSGI application, and a server of your own.

    alight serve examples/web_functions.py     # prints the URLs, reloads when you save, ends with Ctrl-C
    alight deploy examples/web_functions.py    # keeps them
    curl http://web-functions-greet.localhost:9080/?name=Ada

The URL of each function is printed when it is published, and `get_web_url()` has it.
"""

import alight

image = alight.Image.debian_slim(python_version="3.11").pip_install("fastapi", "python-multipart", "flask")
app = alight.App("web-functions", image=image)


@app.function()
@alight.fastapi_endpoint(docs=True)
def greet(name: str = "you") -> dict[str, str]:
    """A plain function: parameters come from the query, the result goes out as JSON."""
    return {"hello": name}


@app.function()
@alight.concurrent(max_inputs=100)
@alight.asgi_app()
def page():
    """An ASGI application: pages, streams and WebSockets. Up to 100 requests at once in one container."""
    import asyncio

    from fastapi import FastAPI, Request, WebSocket
    from fastapi.responses import HTMLResponse, StreamingResponse

    site = FastAPI()

    @site.get("/")
    async def home(request: Request):
        root = request.scope.get("root_path", "")
        return HTMLResponse(
            f"""<!doctype html><title>Alight</title><h1>Hello</h1><p id="said">waiting</p><script>
            const socket = new WebSocket(`ws://${{location.host}}{root}/echo`);
            socket.onopen = () => socket.send("from the page");
            socket.onmessage = (message) => document.getElementById("said").textContent = message.data;
            </script>"""
        )

    @site.get("/count")
    async def count(to: int = 5):
        async def lines():
            for number in range(to):
                yield f"data: {number}\n\n"
                await asyncio.sleep(0.2)

        return StreamingResponse(lines(), media_type="text/event-stream")

    @site.websocket("/echo")
    async def echo(socket: WebSocket):
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text.upper())

    return site


@app.function()
@alight.wsgi_app()
def shop():
    """A WSGI application."""
    from flask import Flask, request

    site = Flask(__name__)

    @site.route("/", methods=["GET", "POST"])
    def home():
        return f"you sent {request.form.get('what', 'nothing')}\n"

    return site


@app.function()
@alight.web_server(8000)
def files():
    """A server of your own, in whatever language: requests to it are passed on to its port."""
    import subprocess

    subprocess.Popen(["python3", "-m", "http.server", "8000", "--directory", "/usr/share/doc"])


@app.local_entrypoint()
def main():
    """`alight run` asks one of them, from here and from inside a container."""
    import urllib.request

    url = greet.get_web_url()
    print("from here:       ", urllib.request.urlopen(f"{url}?name=Ada").read().decode())
    print("from a container:", ask.remote("Ada"))


@app.function()
def ask(name: str) -> str:
    """The URL is another one in here: one that works in containers."""
    import urllib.request

    url = greet.get_web_url()
    return urllib.request.urlopen(f"{url}?name={name}").read().decode()
