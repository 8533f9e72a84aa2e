"""What importing the package brings with it."""

from __future__ import annotations

import subprocess
import sys


def test_importing_it_imports_no_third_party():
    code = (
        "import sys, trainbus_learner\n"
        "names = {'torch', 'numpy', 'matplotlib', 'safetensors', 'onnx', 'trainbus_data'}\n"
        "assert not names & set(sys.modules), names & set(sys.modules)\n"
        "assert set(trainbus_learner.__all__) <= set(dir(trainbus_learner))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    import trainbus_learner

    for name in trainbus_learner.__all__:
        assert getattr(trainbus_learner, name).__name__ == name
