"""What happens to files under a running daemon: an error each, and the daemon goes on."""

import os
import resource
import shutil
import signal
import subprocess

import pytest

from conftest import BIN, ROOT, Daemon

DEMO = ROOT / "deploy" / "demo" / "shapes-sd1.safetensors"
NAME = "model.safetensors"
# Read from the file in every step.
ON_DISK = ["--unet_compute_device=cuda:0", "--unet_expert_mode_allocations=disk,*"]


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(DEMO, folder / NAME)
    return folder


@pytest.fixture
def daemon(tmp_path, models):
    running = Daemon(tmp_path, f"--checkpoint_dirs={models}")
    yield running
    running.stop()
    assert running.process.returncode == 0, running.log.read_text()


def draw(daemon, image):
    return daemon.ctl("infer", "--prompt=a red circle", "--width=64", "--height=64", "--steps=2", "--seed=1",
                      f"--output={image}")


def serving(daemon, models, tmp_path):
    """A file that is whole loads and draws, whatever happened to another."""
    shutil.copy(DEMO, models / "whole.safetensors")
    daemon.ctl_json("unload", "--all")
    daemon.ctl_json("load", "whole.safetensors", *ON_DISK)
    result = draw(daemon, tmp_path / "after.png")
    assert result.returncode == 0, result.stderr


def test_a_file_cut_short_while_it_is_streamed(daemon, models, tmp_path):
    daemon.ctl_json("load", NAME, *ON_DISK)
    os.truncate(models / NAME, 1 << 20)
    result = draw(daemon, tmp_path / "image.png")
    assert result.returncode == 1 and "DATA_LOSS" in result.stderr and NAME in result.stderr
    assert "INVALID_ARGUMENT" in daemon.ctl("load", NAME, "--unet_compute_device=cuda:1").stderr
    serving(daemon, models, tmp_path)


def test_a_file_written_over_while_it_is_streamed(daemon, models, tmp_path):
    daemon.ctl_json("load", NAME, *ON_DISK)
    with open(models / NAME, "r+b") as file:
        file.seek(20 << 20)
        file.write(bytes(1 << 20))
    result = draw(daemon, tmp_path / "image.png")
    assert result.returncode == 1 and "DATA_LOSS" in result.stderr and NAME in result.stderr
    serving(daemon, models, tmp_path)


def test_a_file_written_over_with_itself_is_loaded_anew(daemon, models, tmp_path):
    loaded = daemon.ctl_json("load", NAME, *ON_DISK)
    assert draw(daemon, tmp_path / "before.png").returncode == 0
    (models / NAME).write_bytes(DEMO.read_bytes())
    assert "DATA_LOSS" in draw(daemon, tmp_path / "damaged.png").stderr
    assert daemon.ctl_json("load", NAME, *ON_DISK)["model"] == loaded["model"]
    result = draw(daemon, tmp_path / "after.png")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "after.png").read_bytes() == (tmp_path / "before.png").read_bytes()


def test_a_file_replaced_or_gone_is_read_as_it_was(daemon, models, tmp_path):
    daemon.ctl_json("load", NAME, *ON_DISK)
    assert draw(daemon, tmp_path / "before.png").returncode == 0
    (models / "other").write_bytes(b"no checkpoint")
    os.replace(models / "other", models / NAME)
    assert draw(daemon, tmp_path / "replaced.png").returncode == 0
    shutil.rmtree(models)
    assert draw(daemon, tmp_path / "gone.png").returncode == 0
    before = (tmp_path / "before.png").read_bytes()
    assert (tmp_path / "replaced.png").read_bytes() == before == (tmp_path / "gone.png").read_bytes()

    assert NAME not in {checkpoint["ckpt_name"] for checkpoint in daemon.ctl_json("checkpoints")["checkpoints"]}
    assert "NOT_FOUND" in daemon.ctl("load", NAME, "--unet_compute_device=cuda:1").stderr
    models.mkdir()
    serving(daemon, models, tmp_path)


def test_what_cannot_be_read_is_named(daemon, models, tmp_path):
    (models / "folder.safetensors").mkdir()
    os.symlink(models / "nowhere", models / "dangling.safetensors")
    os.mkfifo(models / "pipe.safetensors")
    (models / "empty.safetensors").touch()
    for name in ("folder", "dangling", "pipe", "empty"):
        result = daemon.ctl("load", f"{name}.safetensors")
        assert result.returncode == 1 and name in result.stderr
        assert "INVALID_ARGUMENT" in result.stderr or "NOT_FOUND" in result.stderr
    assert NAME in {checkpoint["ckpt_name"] for checkpoint in daemon.ctl_json("checkpoints")["checkpoints"]}
    serving(daemon, models, tmp_path)


def full_disk():
    """From here on every write to a file fails, as on a disk without room."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_a_full_disk_is_an_error(daemon, tmp_path):
    daemon.ctl_json("load", NAME)
    image = tmp_path / "image.png"
    result = subprocess.run(
        [BIN / "distorchctl", f"--address={daemon.address}", "infer", "--prompt=a red circle", "--width=64",
         "--height=64", "--steps=1", f"--output={image}"],
        capture_output=True, text=True, timeout=300, preexec_fn=full_disk)
    assert result.returncode == 1 and f"cannot write '{image}'" in result.stderr

    ports = tmp_path / "full.json"
    result = subprocess.run(
        [BIN / "distorchd", "--listen_address=127.0.0.1:0", "--metrics_address=", f"--checkpoint_dirs={tmp_path}",
         "--simulate_devices=cuda:0=1GiB", f"--port_file={ports}"],
        capture_output=True, text=True, timeout=60, preexec_fn=full_disk)
    assert result.returncode == 1 and "port_file: cannot write" in result.stderr
    assert not ports.exists() and not (tmp_path / "full.json.tmp").exists()
