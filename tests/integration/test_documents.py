"""Documents name what there is, tables are whole, and the API guide's examples run."""

import ast
import re
import subprocess

from conftest import BIN, ROOT
from test_python_client import write_lora

# Of other programs.
FOREIGN = {"auto-fit", "backend", "build-arg", "from-file", "gpus", "now", "params-backend", "previous", "read-only", "rm",
           "stream-layers", "system", "time", "tmpfs"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def files(*patterns):
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *patterns], cwd=ROOT, check=True, capture_output=True,
                            text=True)
    return {name: (ROOT / name).read_text() for name in listed.stdout.split()}


DOCUMENTS = files("*.md")
README = DOCUMENTS["README.md"]


def help_of(program, *command):
    return subprocess.run([BIN / program, *command, "--help"], check=True, capture_output=True, text=True).stdout


def flags(text):
    return set(re.findall(r"(?<![\w-])--([a-z][a-z0-9_-]*)", text))


def section(text, title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]


def anchors(text):
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    for name, text in DOCUMENTS.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
            path, _, anchor = link.partition("#")
            target = (ROOT / name).parent / path if path else ROOT / name
            assert "://" in link or target.exists(), f"{name}: {link}"
            if anchor and "://" not in link:
                assert anchor in anchors(target.read_text()), f"{name}: {link}"


def test_examples_can_be_read():
    for name, text in DOCUMENTS.items():
        for language, code in FENCE.findall(text):
            if language == "python":
                compile(code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            elif language == "sh":
                assert subprocess.run(["bash", "-n"], input=code, text=True).returncode == 0, name


def test_flags_are_there_and_in_the_readme():
    daemon, ctl = help_of("distorchd"), help_of("distorchctl")
    ours = flags(daemon)
    commands = re.findall(r"^  ([a-z_]+)  ", ctl, re.M)
    scripts = files("*.sh", "deploy/demo/train.py", "tests/bench/*.py", "tests/bench/*.cc",
                    "tests/integration/crashes.py").values()
    known = ours | FOREIGN | flags(ctl + "".join(help_of("distorchctl", name) for name in commands) + "".join(scripts))
    unknown = {name: flags(text) - known for name, text in DOCUMENTS.items()}
    assert not {name: names for name, names in unknown.items() if names}
    assert flags(section(README, "Flags")) ^ ours <= {"help", "version"}
    defaults = {f"`--{flag}={default}`" for flag, default in re.findall(r"^  --(\w+) \S+ \[(.*?)\]", daemon, re.M)}
    assert len(defaults) > 20 and not defaults - set(re.findall(r"`--[^`]*`", section(README, "Flags")))


def test_metrics_and_rpcs_are_there_and_in_the_readme():
    metrics = set(re.findall(r'"(distorchd_\w+|process_\w+)"', (ROOT / "server/metrics.cc").read_text()))
    for name, text in DOCUMENTS.items():
        assert not set(re.findall(r"\bdistorchd_[a-z_]+\b", text)) - metrics, name
    assert not metrics - set(re.findall(r"`(\w+)", section(README, "Metrics")))
    rpcs = set(re.findall(r"^  rpc (\w+)", (ROOT / "proto/distorch.proto").read_text(), re.M))
    assert not rpcs - set(re.findall(r"\w+", section(README, "RPCs")))


def test_the_api_guides_examples_run(start_daemon, tmp_path, monkeypatch):
    write_lora(tmp_path / "ink.safetensors")
    daemon = start_daemon(f"--lora_dirs={tmp_path}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))
    names = {}
    for language, code in FENCE.findall(DOCUMENTS["proto/README.md"]):
        if language == "python":
            code = code.replace("127.0.0.1:50051", daemon.address).replace("localhost:9464", f"localhost:{daemon.ports['metrics']}")
            exec(compile(code, "proto/README.md", "exec"), names)
    assert names["plan"].fits and names["again"].shape == (1, 4, 16, 16)
    assert names["picture"].startswith(b"\x89PNG")
