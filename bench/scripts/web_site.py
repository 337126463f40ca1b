"""One line of FastAPI, and a WebSocket that echoes: what bare uvicorn and web functions serve alike."""


def site():
    """The application."""
    from fastapi import FastAPI, WebSocket

    made = FastAPI()

    @made.get("/")
    async def hello():
        return {"hello": "world"}

    @made.websocket("/echo")
    async def echo(socket: WebSocket):
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)

    return made
