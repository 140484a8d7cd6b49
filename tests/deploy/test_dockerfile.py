"""The Dockerfile: linted, checked against what it names, and its steps run as far as they go without a registry of images."""

import fnmatch
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("DISTORCH_BIN_DIR", ROOT / "build" / "bin"))
DOCKERFILE = ROOT / "Dockerfile"


def stages():
    """The instructions of each stage, as (word, rest) with lines joined; those before the first FROM are left out."""
    text = "\n".join(line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#"))
    found = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            if word == "FROM":
                found.append([])
            if found:
                found[-1].append((word, rest.strip()))
    return found


def rests(stage, word):
    return [rest for found, rest in stage if found == word]


def environment(stage):
    return dict(shlex.split(rest)[i].split("=", 1) for rest in rests(stage, "ENV") for i in range(len(shlex.split(rest))))


def test_hadolint_has_nothing_to_say():
    hadolint = shutil.which("hadolint", path=str(pathlib.Path(sys.executable).parent))
    result = subprocess.run([hadolint, "--failure-threshold=style", DOCKERFILE], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_base_images_are_pinned():
    for stage in stages():
        assert re.fullmatch(r"debian:bookworm-\d{8}(-slim)?@sha256:[0-9a-f]{64}( AS \w+)?", rests(stage, "FROM")[0])


def test_what_it_copies_and_runs_is_there():
    builder, final = stages()
    ignored = {line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")}
    named = [name for rest in rests(builder, "COPY") for name in rest.split()[:-1]]
    named += re.findall(r"bash (\S+\.sh)", " ".join(rests(builder, "RUN")))
    named += re.findall(r"source=/src/(\S+?),", " ".join(rests(final, "RUN")))
    assert len(named) > 5
    for name in named:
        assert (ROOT / name).exists(), name
        parts = pathlib.PurePath(name).parts
        assert not any(fnmatch.fnmatch(part, pattern.removeprefix("**/")) for pattern in ignored
                       for part in (parts if pattern.startswith("**/") else parts[:1])), name


def test_what_it_sets_is_what_the_daemon_has():
    final = stages()[-1]
    variables = environment(final)
    flags = set(re.findall(r"--([a-z_]+)", subprocess.run([BIN / "distorchd", "--help"], capture_output=True, text=True).stdout))
    settings = {name for name in variables if name.startswith("DISTORCHD_")}
    assert {name.removeprefix("DISTORCHD_").lower() for name in settings} <= flags
    ports = {variables[f"DISTORCHD_{kind}_ADDRESS"].rpartition(":")[2] for kind in ("LISTEN", "METRICS")}
    assert set(" ".join(rests(final, "EXPOSE")).split()) == ports
    made = " ".join(rests(final, "RUN"))
    for name, value in variables.items():
        if name.endswith("_DIRS"):
            assert value in made and value.startswith(rests(final, "VOLUME")[0])
    assert json.loads(rests(final, "ENTRYPOINT")[0]) == ["distorchd"]
    # Kubernetes' manifests run it as the same user, and bake and they agree on the tags.
    user, group = rests(final, "USER")[0].split(":")
    pod = yaml.safe_load((ROOT / "deploy/kubernetes/base/stateful-set.yaml").read_text())["spec"]["template"]["spec"]
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]) == (int(user), int(group))
    assert f"--uid {user} " in made
    variants = set(re.findall(r'"(\w+)"', re.search(r"variant = (\[.*\])", (ROOT / "deploy/docker-bake.hcl").read_text())[1]))
    for overlay in (ROOT / "deploy/kubernetes/overlays").glob("*/kustomization.yaml"):
        assert yaml.safe_load(overlay.read_text())["images"][0]["newTag"] in variants


# This machine's system read-only, with the bundle's programs and libraries over it: as the image, but for its packages.
ENTER = textwrap.dedent("""
    root=$1 bundle=$2 models=$3; shift 3
    mkdir -p "$root"/{usr,etc,dev,proc,tmp,var/lib/dpkg,models/checkpoints,bundle}
    for name in bin lib lib64 sbin; do ln -s usr/$name "$root/$name"; done
    for name in usr etc var/lib/dpkg; do mount --bind "/$name" "$root/$name"; mount -o remount,bind,ro "$root/$name"; done
    mount --bind "$bundle/usr/local/bin" "$root/usr/local/bin"
    mount --bind "$models" "$root/models/checkpoints"
    mount --bind "$bundle" "$root/bundle"
    for name in "$bundle"/*; do
      name=${name##*/}
      [ "$name" = usr ] || { mkdir -p "$root/$name"; mount --bind "$bundle/$name" "$root/$name"; }
    done
    mount --rbind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    mount --rbind "$root" "$root"
    mount -o remount,bind,ro "$root"
    mount -t tmpfs tmpfs "$root/tmp"
    python3 -c 'import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 1))'  # SIOCSIFFLAGS, IFF_UP
    exec chroot "$root" setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
""")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """What the image runs: a function from a command to a process in a read-only root, as its user, without
    capabilities, and in a network of its own, so that the ports are free."""
    folder = tmp_path_factory.mktemp("image")
    can = subprocess.run(["unshare", "--mount", "--net", "mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, text=True)
    if os.geteuid() != 0 or can.returncode != 0:
        pytest.skip(f"takes root and mounts: {can.stderr}")
    torch = re.search(r"=> (\S+/torch)/lib/libtorch_cpu.so", subprocess.run(
        ["ldd", BIN / "distorchd"], capture_output=True, text=True, check=True).stdout)[1]
    bundle = subprocess.run(["bash", ROOT / "deploy" / "bundle.sh", folder / "bundle"], capture_output=True, text=True, env={
        **os.environ, "DISTORCH_TORCH_VARIANT": "cpu", "DISTORCH_TORCH_DIR": torch, "DISTORCH_BUILD_DIR": str(BIN.parent)})
    assert bundle.returncode == 0, bundle.stderr
    # The folders on the way to LibTorch may be its owner's alone here; in an image they are not.
    subprocess.run(["chmod", "-R", "a+rX", folder / "bundle"], check=True)
    started = []

    def start(*command, **options):
        root = folder / f"root-{len(started)}"
        root.mkdir(mode=0o755)
        variables = [f"{name}={value}" for name, value in (environment(stages()[-1]) | options.pop("env", {})).items()]
        started.append(subprocess.Popen(
            ["unshare", "--mount", "--net", "bash", "-euc", ENTER, "bash", root, folder / "bundle", ROOT / "deploy" / "demo",
             "env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", *variables, *command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
    shutil.rmtree(folder)


def test_the_image_runs_read_only_without_rights(image):
    """Its entry point with its settings, then its health check."""
    final = stages()[-1]
    entry = json.loads(rests(final, "ENTRYPOINT")[0])
    check = json.loads(rests(final, "HEALTHCHECK")[0].partition("CMD ")[2])
    script = f'entry() {{ exec {shlex.join(entry)} "$@"; }}\ncheck() {{ {shlex.join(check)}; }} 2>/dev/null\n' + textwrap.dedent("""
        for place in /usr/local/bin /models /etc /; do
          ! touch "$place/probe" 2>/dev/null || { echo "$place is writable"; exit 1; }
        done
        entry --compute_dtype=fp32 2>/tmp/log & daemon=$!
        for _ in $(seq 300); do
          if check || ! kill -0 "$daemon"; then break; fi
          sleep 0.1
        done
        check || { echo "not healthy after half a minute"; cat /tmp/log; exit 1; }
        distorchctl plan shapes-sd1.safetensors >/dev/null
        kill -TERM "$daemon"
        wait "$daemon" || { echo "ended with $?"; cat /tmp/log; exit 1; }
        ! check || { echo "healthy without a daemon"; exit 1; }
    """)
    process = image("bash", "-euc", script, env={"OMP_NUM_THREADS": "1"})
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, output + errors


def test_the_image_says_what_it_is_made_of(image):
    step = re.search(r"/tmp/sbom.sh (\S+) >(\S+)", rests(stages()[-1], "RUN")[0])
    assert step[2].endswith(".cdx.json")
    process = image("bash", "-c", 'bash -s "$0" <<<"$1"', "/bundle" + step[1], (ROOT / "deploy" / "sbom.sh").read_text())
    text, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, problem
    document = json.loads(text)
    assert document["metadata"]["component"]["name"] == "distorchd"
    urls = [component["purl"] for component in document["components"]]
    assert len(set(urls)) == len(urls)
    assert any(url.startswith("pkg:pypi/torch@2.") for url in urls)
    assert any(url.startswith("pkg:deb/debian/libgrpc%2B%2B1.51@") for url in urls)
