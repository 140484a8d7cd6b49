"""Tests import the Python client as users have it: from its wheel."""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[1]


def pytest_configure(config):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="distorchd-client-"))
    config.add_cleanup(lambda: shutil.rmtree(folder))
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel", "--no-build-isolation",
                    "--no-deps", f"--wheel-dir={folder}", ROOT / "client" / "python"], check=True)
    config.client_wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(config.client_wheel) as wheel:
        wheel.extractall(folder / "site")
    sys.path.insert(0, str(folder / "site"))
