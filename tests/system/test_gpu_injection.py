"""What a description of a driver becomes in a container: programs find library and program by their usual names.

The driver is a stand-in: a library of the image's own under the name of the driver's, and a shell script.
"""

# ruff: noqa: F811 fixtures are imported and then asked for by name
from __future__ import annotations

import shutil
from pathlib import Path

from alight.node.gpus import cdi, inject
from tests.system.lab import lab  # noqa: F401 a fixture


def test_programs_find_a_described_driver_by_the_names_that_they_open(lab, base_layers, tmp_path):
    some = next(path for layer in base_layers for path in sorted(Path(layer).glob("usr/lib/*-linux-gnu/libz.so.1.*")))
    shutil.copy(some, tmp_path / "libcuda.so.550.54.15")
    (tmp_path / "libcuda.so.1").symlink_to("libcuda.so.550.54.15")
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho stand-in $1\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    mounts = [
        {"hostPath": str(tmp_path / "libcuda.so.550.54.15"), "containerPath": "/usr/lib/libcuda.so.550.54.15"},
        {"hostPath": str(tmp_path / "nvidia-smi"), "containerPath": "/usr/bin/nvidia-smi"},
    ]
    spec = {"kind": cdi.KIND, "devices": [{"name": "0"}], "containerEdits": {"mounts": mounts}}
    found = cdi.edits([spec], [("0",)], inject.LIBRARIES)
    plan = lab.python(
        """
        import ctypes, subprocess
        print(ctypes.CDLL("libcuda.so.1").zlibVersion is not None)
        print(subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout, end="")
        try:
            open("/usr/bin/nvidia-smi", "w")
        except OSError as error:
            print(error.strerror)
        """,
        binds=found.binds,
        env={"LD_LIBRARY_PATH": inject.LIBRARIES},
    )
    assert lab.ask(plan) == "True\nstand-in -L\nRead-only file system\n[0]"
