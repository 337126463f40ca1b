"""Alight: plain Python functions on machines you own, as if they were a serverless cloud.

The public names. Each loads with its first use, so that `import alight` costs next to nothing and declaring an app
imports no network code. Read `wire` first, then the package that you came for:

    wire      what crosses a process boundary       server     the control plane
    sdk       what a user writes                    scheduler  decides, purely
    cli       words and colours                     store      keeps
    runtime   inside the container                  node       the agent of one machine
    compat    `import modal` means this             builder    images
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing itself costs more than all of this; checkers know the name

#: Public name → the module that has it. The order is the alphabet's.
_WHERE = {
    "App": "alight.sdk.app",
    "Client": "alight.sdk.client",
    "CloudBucketMount": "alight.sdk.cloud_bucket",
    "Cls": "alight.sdk.cls",
    "Cluster": "alight.sdk.cluster",
    "Cron": "alight.sdk.schedule",
    "Dict": "alight.sdk.dict",
    "Environment": "alight.sdk.environment",
    "Error": "alight.wire.errors",
    "FilePatternMatcher": "alight.sdk.image_patterns",
    "Function": "alight.sdk.function",
    "FunctionCall": "alight.sdk.call",
    "Image": "alight.sdk.image",
    "NetworkFileSystem": "alight.sdk.network_file_system",
    "Period": "alight.sdk.schedule",
    "Probe": "alight.sdk.probe",
    "Proxy": "alight.sdk.proxy",
    "Queue": "alight.sdk.queue",
    "Retries": "alight.sdk.schedule",
    "Sandbox": "alight.sdk.sandbox",
    "SandboxSnapshot": "alight.sdk.sandbox",
    "SchedulerPlacement": "alight.sdk.schedule",
    "Secret": "alight.sdk.secret",
    "Server": "alight.sdk.server",
    "Tunnel": "alight.sdk.tunnel",
    "Volume": "alight.sdk.volume",
    "Workspace": "alight.sdk.workspace",
    "__version__": "alight.wire.version",
    "asgi_app": "alight.sdk.web",
    "batched": "alight.sdk.shaping",
    "clustered": "alight.sdk.shaping",
    "concurrent": "alight.sdk.shaping",
    "current_function_call_id": "alight.sdk.current",
    "current_input_id": "alight.sdk.current",
    "enable_output": "alight.sdk.output",
    "enter": "alight.sdk.cls",
    "exit": "alight.sdk.cls",
    "fastapi_endpoint": "alight.sdk.web",
    "forward": "alight.sdk.tunnel",
    "interact": "alight.sdk.interact",
    "is_local": "alight.sdk.current",
    "method": "alight.sdk.cls",
    "parameter": "alight.sdk.cls",
    "sessioned": "alight.sdk.shaping",
    "web_endpoint": "alight.sdk.web",
    "web_server": "alight.sdk.web",
    "wsgi_app": "alight.sdk.web",
}
_MODULES = ("config", "exception", "experimental", "gpu", "types")

#: Names of older scripts that are gone, with what to write instead.
_GONE = {
    "Mount": "add the files to the image: Image.add_local_dir(), add_local_file() or add_local_python_source()",
    "SharedVolume": "use Volume",
    "Stub": "use App",
    "asgi": "use asgi_app",
    "build": "use Image.run_function() or Image.run_commands()",
    "create_package_mounts": "use Image.add_local_python_source()",
    "lookup": "use Function.from_name() or Cls.from_name()",
    "proxy": "use Proxy",
    "web": "use fastapi_endpoint",
    "wsgi": "use wsgi_app",
}

__all__ = [
    "App",
    "Client",
    "CloudBucketMount",
    "Cls",
    "Cluster",
    "Cron",
    "Dict",
    "Environment",
    "Error",
    "FilePatternMatcher",
    "Function",
    "FunctionCall",
    "Image",
    "NetworkFileSystem",
    "Period",
    "Probe",
    "Proxy",
    "Queue",
    "Retries",
    "Sandbox",
    "SandboxSnapshot",
    "SchedulerPlacement",
    "Secret",
    "Server",
    "Tunnel",
    "Volume",
    "Workspace",
    "__version__",
    "asgi_app",
    "batched",
    "clustered",
    "concurrent",
    "config",
    "current_function_call_id",
    "current_input_id",
    "enable_output",
    "enter",
    "exception",
    "exit",
    "experimental",
    "fastapi_endpoint",
    "forward",
    "gpu",
    "interact",
    "is_local",
    "method",
    "parameter",
    "sessioned",
    "types",
    "web_endpoint",
    "web_server",
    "wsgi_app",
]

if TYPE_CHECKING:
    from typing import Any

    from alight import config, exception, experimental, gpu, types
    from alight.sdk.app import App
    from alight.sdk.call import FunctionCall
    from alight.sdk.client import Client
    from alight.sdk.cloud_bucket import CloudBucketMount
    from alight.sdk.cls import Cls, enter, exit, method, parameter  # noqa: A004  the public name
    from alight.sdk.cluster import Cluster
    from alight.sdk.current import current_function_call_id, current_input_id, is_local
    from alight.sdk.dict import Dict
    from alight.sdk.environment import Environment
    from alight.sdk.function import Function
    from alight.sdk.image import Image
    from alight.sdk.image_patterns import FilePatternMatcher
    from alight.sdk.interact import interact
    from alight.sdk.network_file_system import NetworkFileSystem
    from alight.sdk.output import enable_output
    from alight.sdk.probe import Probe
    from alight.sdk.proxy import Proxy
    from alight.sdk.queue import Queue
    from alight.sdk.sandbox import Sandbox, SandboxSnapshot
    from alight.sdk.schedule import Cron, Period, Retries, SchedulerPlacement
    from alight.sdk.secret import Secret
    from alight.sdk.server import Server
    from alight.sdk.shaping import batched, clustered, concurrent, sessioned
    from alight.sdk.tunnel import Tunnel, forward
    from alight.sdk.volume import Volume
    from alight.sdk.web import asgi_app, fastapi_endpoint, web_endpoint, web_server, wsgi_app
    from alight.sdk.workspace import Workspace
    from alight.wire.errors import Error
    from alight.wire.version import __version__


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is not None:
        __import__(where)
        value = getattr(sys.modules[where], name)
        globals()[name] = value
        return value
    if name in _MODULES:
        __import__(f"alight.{name}")
        return sys.modules[f"alight.{name}"]
    if name in _GONE:
        from alight.wire.errors import DeprecationError  # noqa: PLC0415  names that are gone are rare

        raise DeprecationError(f"alight.{name} is gone: {_GONE[name]}")
    raise AttributeError(f"module 'alight' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
