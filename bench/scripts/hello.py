"""The smallest script that runs something in a container."""

import alight

app = alight.App("bench-hello", image=alight.Image.debian_slim(python_version="3.11"))


@app.function()
def hello(name: str) -> str:
    return f"hello, {name}"


@app.local_entrypoint()
def main(name: str = "world"):
    print(hello.remote(name))
