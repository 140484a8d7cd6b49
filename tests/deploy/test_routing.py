"""The proxies of deploy/kubernetes, the real programs, in front of two daemons."""

import pathlib
import re
import shutil
import socket
import subprocess
import sys
import urllib.request

import pytest
import yaml

from waiting import wait_until

COMPONENTS = pathlib.Path(__file__).resolve().parents[2] / "deploy" / "kubernetes" / "components"
DEMO = "shapes-sd1.safetensors"
ROUTE = f"--route_checkpoint={DEMO}"
SPLIT = ["--unet_compute_device=cuda:0", "--unet_expert_mode_allocations=cuda:0,50%;cuda:1,30%;cpu,20%", "--vae_device=cuda:1"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def nginx_command(folder, port, addresses, programs):
    config = (COMPONENTS / "nginx" / "nginx.conf").read_text()
    (folder / "nginx.conf").write_text(
        "user root;\n" + config.replace("/tmp/", f"{folder}/").replace("listen 50051", f"listen 127.0.0.1:{port}"))
    # As the file there, with addresses that need no resolver.
    server = re.search(r"^server \S+ resolve (.*;)", (COMPONENTS / "nginx" / "upstream.conf").read_text(), re.MULTILINE)[1]
    (folder / "upstream.conf").write_text("".join(f"server {address} {server}\n" for address in addresses))
    return [programs["nginx"], "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr", "-g", "daemon off;"]


def envoy_command(folder, port, addresses, _programs):
    config = yaml.safe_load((COMPONENTS / "envoy" / "envoy.yaml").read_text())
    resources = config["static_resources"]
    resources["listeners"][0]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    cluster = resources["clusters"][0]
    ends = [{"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(number)}}}}
            for host, _, number in (address.partition(":") for address in addresses)]
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = ends
    (folder / "envoy.yaml").write_text(yaml.safe_dump(config))
    envoy = shutil.which("envoy", path=str(pathlib.Path(sys.executable).parent))
    return [envoy, "--config-path", folder / "envoy.yaml", "--disable-hot-restart", "--concurrency", "1"]


class Proxy:
    def __init__(self, command, folder, addresses, programs):
        self.address = f"127.0.0.1:{free_port()}"
        self.log = folder / "proxy.log"
        arguments = command(folder, int(self.address.rpartition(":")[2]), addresses, programs)
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)


@pytest.fixture(params=[nginx_command, envoy_command], ids=["nginx", "envoy"])
def replicas(request, start_daemon, tmp_path, programs):
    """Two daemons, and a proxy in front of them."""
    daemons = [start_daemon(), start_daemon()]
    proxy = Proxy(request.param, tmp_path, [daemon.address for daemon in daemons], programs)
    yield daemons, proxy
    proxy.stop()


def calls_of(daemon, method):
    text = urllib.request.urlopen(f"http://127.0.0.1:{daemon.ports['metrics']}/metrics", timeout=10).read().decode()
    return sum(int(float(count)) for count in re.findall(
        rf'^distorchd_requests_total{{[^}}]*method="{method}"[^}}]*}} (\S+)$', text, re.MULTILINE))


def steps_of(daemon):
    text = urllib.request.urlopen(f"http://127.0.0.1:{daemon.ports['metrics']}/metrics", timeout=10).read().decode()
    return sum(float(count) for count in re.findall(
        r'^distorchd_phase_seconds_count{[^}]*phase="step"[^}]*} (\S+)$', text, re.MULTILINE))


def through(proxy, daemon, *arguments):
    """The command line of distorchctl, by way of the proxy."""
    return [daemon.ctl_program, f"--address={proxy.address}", "--json", *arguments]


def run(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_checkpoints_calls_stay_on_one_replica_and_go_on_without_it(replicas, tmp_path):
    daemons, proxy = replicas
    first, second = (daemon.ctl_json("load", DEMO, *SPLIT) for daemon in daemons)
    handles = {kind: first[kind] for kind in ("model", "clip", "vae")}
    assert handles == {kind: second[kind] for kind in handles}

    any_daemon = daemons[0]
    # Envoy uses a replica from its first health check on.
    wait_until(lambda: run(through(proxy, any_daemon, "devices")).returncode == 0 and
               all(calls_of(daemon, "ListDevices") > 0 for daemon in daemons), "answers of both by way of the proxy")
    before = [calls_of(daemon, "ListModels") for daemon in daemons]
    for _ in range(10):
        assert run(through(proxy, any_daemon, ROUTE, "models")).returncode == 0
    counted = [calls_of(daemon, "ListModels") - count for daemon, count in zip(daemons, before)]
    assert sorted(counted) == [0, 10]
    owner, other = (daemons if counted[0] else reversed(daemons))

    # Calls that name no checkpoint are spread: 20 of them on one of two is one run in half a million.
    before = [calls_of(daemon, "ListDevices") for daemon in daemons]
    for _ in range(20):
        assert run(through(proxy, any_daemon, "devices")).returncode == 0
    assert all(calls_of(daemon, "ListDevices") > count for daemon, count in zip(daemons, before))

    draw = ["infer", "--prompt=a red circle", "--width=64", "--height=64", "--seed=1"]
    draw += [f"--{kind}={handle}" for kind, handle in handles.items()]
    other.ctl_json(*draw, "--steps=4", f"--output={tmp_path / 'expected.png'}")

    picture = tmp_path / "picture.png"
    running = subprocess.Popen(through(proxy, any_daemon, ROUTE, *draw, "--steps=2000", f"--output={picture}"),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: steps_of(owner) > 0 or running.poll() is not None, "a step of the request")
    assert running.poll() is None, running.communicate()[1]
    owner.process.kill()
    _, error = running.communicate(timeout=60)
    assert running.returncode == 1 and re.search("UNAVAILABLE|INTERNAL|CANCELLED|UNKNOWN", error), error

    # What a client does: the same call again, with the same handles.
    again = through(proxy, any_daemon, ROUTE, *draw, "--steps=4", f"--output={picture}")
    wait_until(lambda: run(again).returncode == 0,
               lambda: f"a picture from the other replica, but {run(again).stderr} {other.process.poll()} {proxy.log.read_text()[-2000:]}")
    assert picture.read_bytes() == (tmp_path / "expected.png").read_bytes()
    for _ in range(10):
        assert run(through(proxy, any_daemon, ROUTE, "models")).returncode == 0


def test_every_replica_is_gone(replicas):
    daemons, proxy = replicas
    wait_until(lambda: run(through(proxy, daemons[0], "devices")).returncode == 0, "an answer by way of the proxy")
    for daemon in daemons:
        daemon.process.kill()
        daemon.process.wait()
    gone = run(through(proxy, daemons[0], "--timeout=20", "devices"))
    assert gone.returncode == 1 and "UNAVAILABLE" in gone.stderr
