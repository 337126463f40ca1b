"""A Gradio page on a URL of its own: `alight serve web_gradio.py`, or `alight deploy` for one that stays."""

import subprocess

import alight

PAGE = """
import gradio

def square(number):
    return number * number

page = gradio.Interface(square, gradio.Number(12), gradio.Number(), title="Squares", api_name="square")
page.launch(server_name="127.0.0.1", server_port=8000, quiet=True)
"""

image = alight.Image.debian_slim(python_version="3.11").pip_install("gradio").env({"GRADIO_ANALYTICS_ENABLED": "False"})
app = alight.App("gradio-page", image=image)


@app.function(max_containers=1)  # a page's session lives in one container
@alight.concurrent(max_inputs=100)
@alight.web_server(8000, startup_timeout=120)
def page():
    with open("/tmp/page.py", "w") as file:
        file.write(PAGE)
    subprocess.Popen(["python", "/tmp/page.py"])


@app.function()
def ask(number: float):
    """The same from a program, by Gradio's own client."""
    from gradio_client import Client  # in the image

    return Client(page.get_web_url(), verbose=False).predict(number, api_name="/square")


@app.local_entrypoint()
def main(number: float = 12):
    print(f"The square of {number:g} is {ask.remote(number):g}.")
