"""The template of these tests: the real one, whose forks stay in our namespaces, since tests need no rights."""

from __future__ import annotations

import os
import sys

_SOURCE = os.path.realpath(__file__).rsplit(os.sep, 4)[0] + os.sep + "src"
sys.path[0] = _SOURCE

from alight.runtime import canary, confine, template

sys.path.append(sys.path.pop(0))
confine.enter_namespaces = lambda _pidfd: None
canary.PATIENCE = float(os.environ.pop("CANARY_PATIENCE", "5"))
sys.exit(template.main(_SOURCE, os.environ.pop("TEMPLATE_HOME", "")))
