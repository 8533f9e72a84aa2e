"""Importing the package is cheap."""

import subprocess
import sys


def test_importing_the_package_imports_no_third_party():
    code = (
        "import sys, trainbus_vision; "
        "heavy = {'torch', 'torchvision', 'numpy', 'PIL', 'matplotlib', 'timm', 'pandas'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_of_the_package_is_there():
    import trainbus_vision

    assert all(getattr(trainbus_vision, name) is not None for name in trainbus_vision.__all__)
