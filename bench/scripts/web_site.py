"""One line of FastAPI, a WebSocket that echoes and a stream: what bare uvicorn and web functions serve alike."""


def site():
    """The application."""
    import asyncio

    from fastapi import FastAPI, WebSocket
    from fastapi.responses import StreamingResponse

    made = FastAPI()

    @made.get("/")
    async def hello():
        return {"hello": "world"}

    @made.websocket("/echo")
    async def echo(socket: WebSocket):
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)

    @made.get("/stream")
    async def stream():
        async def pieces():
            yield b"first"
            await asyncio.sleep(0.05)
            yield b"second"

        return StreamingResponse(pieces())

    return made
