"""The application of web_site.py as a web function in the ways there are, and functions that nobody keeps awake."""

from pathlib import Path

import alight

image = (
    alight.Image.debian_slim(python_version="3.11")
    .pip_install("fastapi", "uvicorn", "uvloop", "httptools", "websockets")
    .add_local_file(Path(__file__).with_name("web_site.py"), "/root/web_site.py")
)
app = alight.App("bench-web", image=image)


@app.function(min_containers=1)
@alight.concurrent(max_inputs=2000)
@alight.asgi_app()
def frames():
    from web_site import site

    return site()


@app.function(min_containers=1)
@alight.concurrent(max_inputs=2000)
@alight.web_server(8000, startup_timeout=30)
def port():
    import subprocess

    words = ["uvicorn", "--factory", "web_site:site", "--port", "8000", "--no-access-log", "--app-dir", "/root"]
    subprocess.Popen(words)


@app.function(scaledown_window=2)
@alight.asgi_app()
def cold():
    async def hello(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    return hello


@app.function(scaledown_window=2)
def called():
    return 1


@app.function(scaledown_window=2)
async def awaited():
    return 1
