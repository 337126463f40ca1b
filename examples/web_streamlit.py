"""A Streamlit page on a URL of its own: `alight serve web_streamlit.py`, or `alight deploy` for one that stays."""

import subprocess

import alight

PAGE = """
import streamlit

streamlit.title("Squares")
number = streamlit.slider("a number", 0, 100, 12)
streamlit.write(f"The square of {number} is {number * number}.")
"""

image = alight.Image.debian_slim(python_version="3.11").pip_install("streamlit")
app = alight.App("streamlit-page", image=image)


@app.function(max_containers=1)  # a page's session lives in one container
@alight.concurrent(max_inputs=100)
@alight.web_server(8000, startup_timeout=60)
def page():
    with open("/tmp/page.py", "w") as file:
        file.write(PAGE)
    # The page's own name is not known in here: the browser's origin is checked by whoever stands before it.
    options = ["--server.port=8000", "--server.headless=true", "--server.enableCORS=false"]
    subprocess.Popen(["streamlit", "run", "/tmp/page.py", "--server.enableXsrfProtection=false", *options])
