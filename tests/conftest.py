"""The real programs: a daemon on free ports over simulated devices, and distorchctl against it."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile

import pytest

from waiting import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[1]
BIN = pathlib.Path(os.environ.get("DISTORCH_BIN_DIR", ROOT / "build" / "bin"))


def pytest_configure(config):
    """Tests import the Python client as users have it: from its wheel."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="distorchd-client-"))
    config.add_cleanup(lambda: shutil.rmtree(folder))
    subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel", "--no-build-isolation",
                    "--no-deps", f"--wheel-dir={folder}", ROOT / "client" / "python"], check=True)
    config.client_wheel = next(folder.glob("*.whl"))
    with zipfile.ZipFile(config.client_wheel) as wheel:
        wheel.extractall(folder / "site")
    sys.path.insert(0, str(folder / "site"))


class Daemon:
    ctl_program = BIN / "distorchctl"

    def __init__(self, folder, *flags, env=None):
        ports = folder / "ports.json"
        ports.unlink(missing_ok=True)  # of one that was killed
        self.log = folder / "daemon.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [BIN / "distorchd", "--listen_address=127.0.0.1:0", "--metrics_address=127.0.0.1:0",
                 f"--checkpoint_dirs={ROOT / 'deploy' / 'demo'}", "--compute_dtype=fp32", "--log_format=json",
                 "--simulate_devices=cuda:0=1GiB,cuda:1=512MiB,cpu=8GiB", f"--port_file={ports}", *flags],
                stdout=log, stderr=log, env={**os.environ, **(env or {})})
        wait_until(lambda: ports.exists() or self.process.poll() is not None, "the file of its ports")
        assert self.process.poll() is None, self.log.read_text()
        self.ports = json.loads(ports.read_text())
        self.address = f"127.0.0.1:{self.ports['grpc']}"

    def ctl(self, *args):
        return subprocess.run([self.ctl_program, f"--address={self.address}", "--json", *args],
                              capture_output=True, text=True, timeout=300)

    def ctl_json(self, *args):
        result = self.ctl(*args)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@pytest.fixture
def start_daemon(tmp_path):
    """Starts a daemon with further flags; as many as are asked for, all stopped at the end."""
    running = []

    def start(*flags, **options):
        folder = tmp_path / f"daemon-{len(running)}"
        folder.mkdir()
        running.append(Daemon(folder, *flags, **options))
        return running[-1]

    yield start
    for code, daemon in [(daemon.stop(), daemon) for daemon in running]:
        assert code in (0, -signal.SIGKILL), f"ended with {code}: {daemon.log.read_text()}"  # the latter by the test


@pytest.fixture
def daemon(start_daemon):
    return start_daemon()


@pytest.fixture(scope="session")
def programs():
    """Where programs of Debian's packages are that are run here but not installed."""
    unpack = "source deploy/lib.sh; unpack_packages run"
    result = subprocess.run(["bash", "-euo", "pipefail", "-c", unpack], cwd=ROOT, check=True, capture_output=True, text=True)
    root = pathlib.Path(result.stdout.strip())
    return {name: root / folder / name
            for folder, name in (("usr/bin", "prometheus"), ("usr/bin", "promtool"), ("usr/sbin", "nginx"))}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Paths of a certificate for 127.0.0.1 that is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
                    "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"
