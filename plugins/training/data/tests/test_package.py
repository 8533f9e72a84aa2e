"""Importing the package."""

import subprocess
import sys

import trainbus_data


def test_import_is_light():
    """Neither torch nor another third party comes with the package or the plugin's class."""
    code = (
        "import sys, trainbus_data; from trainbus_data import DataPlugin; "
        "print([n for n in ('torch', 'numpy', 'PIL', 'torchvision', 'pandas') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_is_there():
    """All that is announced can be had."""
    for name in trainbus_data.__all__:
        assert getattr(trainbus_data, name) is not None
