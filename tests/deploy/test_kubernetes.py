"""deploy/kubernetes: what kustomize makes of it is valid, fits together, and names what the daemon has."""

import functools
import os
import pathlib
import re
import shutil
import subprocess
import urllib.request

import kubernetes_validate
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(folder.name for folder in (KUBERNETES / "overlays").iterdir())
COMPONENTS = sorted(folder.name for folder in (KUBERNETES / "components").iterdir())
# Kinds of others, checked by hand against their schemas; here only for what they refer to.
CUSTOM = {"BackendTrafficPolicy", "GRPCRoute", "Gateway", "InferenceService", "ScaledObject", "ServiceMonitor", "ServingRuntime"}

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kustomize comes with kubectl")


def with_components(folder, *components):
    there = os.path.relpath(KUBERNETES, folder)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({
        "resources": [f"{there}/overlays/one-gpu"], "components": [f"{there}/components/{name}" for name in components]}))
    return kustomize(folder)


def kustomize(folder):
    result = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


@pytest.fixture(scope="module", params=[*OVERLAYS, *COMPONENTS, "kserve"])
def objects(request, tmp_path_factory):
    """Of each overlay, of each component on top of one, and of the KServe objects."""
    if request.param in OVERLAYS:
        return kustomize(KUBERNETES / "overlays" / request.param)
    if request.param not in COMPONENTS:
        return kustomize(KUBERNETES / request.param)
    return with_components(tmp_path_factory.mktemp("kustomize").resolve(), request.param)


def of_kind(objects, *kinds):
    return [item for item in objects if item["kind"] in kinds]


def pods(objects):
    """(name, labels, pod spec) of all that runs."""
    for item in of_kind(objects, "StatefulSet", "Deployment"):
        template = item["spec"]["template"]
        yield item["metadata"]["name"], template["metadata"]["labels"], template["spec"]
    for item in of_kind(objects, "ServingRuntime"):
        yield item["metadata"]["name"], {}, item["spec"]


@functools.cache
def flags():
    return set(re.findall(r"--([a-z_]+)", subprocess.run(
        [pathlib.Path(os.environ.get("DISTORCH_BIN_DIR", ROOT / "build" / "bin")) / "distorchd", "--help"],
        capture_output=True, text=True, check=True).stdout))


def daemon_container(objects):
    return of_kind(objects, "StatefulSet")[0]["spec"]["template"]["spec"]["containers"][0]


def settings(container):
    return {variable["name"]: variable["value"] for variable in container.get("env", [])
            if variable["name"].startswith("DISTORCHD_")}


def test_objects_are_valid(objects):
    names = [(item["apiVersion"], item["kind"], item["metadata"]["name"]) for item in objects]
    assert len(set(names)) == len(names)
    for item in objects:
        if item["kind"] != "Namespace":
            assert item["metadata"]["namespace"] == "distorchd", item["metadata"]["name"]
        if item["kind"] not in CUSTOM:
            kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)


def test_objects_find_each_other(objects):
    running = list(pods(objects))
    services = {item["metadata"]["name"]: item for item in of_kind(objects, "Service")}

    def selected(selector):
        return [spec for _, labels, spec in running if selector.items() <= labels.items()]

    for name, service in services.items():
        targets = selected(service["spec"]["selector"])
        assert len(targets) == 1, name
        ports = {port["name"] for container in targets[0]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for item in of_kind(objects, "PodDisruptionBudget"):
        assert selected(item["spec"]["selector"]["matchLabels"])
    for item in of_kind(objects, "NetworkPolicy"):
        targets = selected(item["spec"]["podSelector"]["matchLabels"])
        ports = {port["name"] for spec in targets for container in spec["containers"] for port in container["ports"]}
        assert {port["port"] for rule in item["spec"]["ingress"] for port in rule["ports"]} <= ports
    for item in of_kind(objects, "StatefulSet"):
        assert services[item["spec"]["serviceName"]]["spec"]["clusterIP"] == "None"
    for item in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        target = item["spec"]["scaleTargetRef"]
        assert target["name"] in {found["metadata"]["name"] for found in of_kind(objects, target["kind"])}
    for item in of_kind(objects, "ServiceMonitor"):
        wanted = item["spec"]["selector"]["matchLabels"]
        matched = [service for service in services.values() if wanted.items() <= service["metadata"]["labels"].items()]
        assert len(matched) == 1  # of two, every replica would be counted twice
        ports = {port["name"] for port in matched[0]["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in item["spec"]["endpoints"]} <= ports
    for item in of_kind(objects, "GRPCRoute"):
        for backend in (backend for rule in item["spec"]["rules"] for backend in rule["backendRefs"]):
            assert backend["port"] in {port["port"] for port in services[backend["name"]]["spec"]["ports"]}
        assert item["spec"]["parentRefs"][0]["name"] in {found["metadata"]["name"] for found in of_kind(objects, "Gateway")}
    for item in of_kind(objects, "BackendTrafficPolicy"):
        for target in item["spec"]["targetRefs"]:
            assert target["name"] in {found["metadata"]["name"] for found in of_kind(objects, target["kind"])}
    for item in of_kind(objects, "InferenceService"):
        assert item["spec"]["predictor"]["model"]["runtime"] in {name for name, _, _ in running}


def test_pods_are_confined(objects):
    for name, _, spec in pods(objects):
        shared = spec.get("securityContext", {})
        volumes = {volume["name"] for volume in spec.get("volumes", [])}
        volumes |= {claim["metadata"]["name"] for item in of_kind(objects, "StatefulSet")
                    for claim in item["spec"].get("volumeClaimTemplates", [])}
        for container in spec["containers"]:
            own = shared | container["securityContext"]
            assert own["runAsNonRoot"] and own["runAsUser"] > 0, name
            assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
            assert own["capabilities"] == {"drop": ["ALL"]} and own["seccompProfile"] == {"type": "RuntimeDefault"}
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert "memory" in container["resources"]["limits"] or name == "distorchd"
            assert re.search(r":[\w.-]+$", container["image"]), "an image without a tag is another one tomorrow"


def test_settings_and_probes_are_what_the_daemon_has(objects):
    known = flags()
    for name, _, spec in pods(objects):
        for container in spec["containers"]:
            if not settings(container):
                continue
            unknown = {variable for variable in settings(container)
                       if variable.removeprefix("DISTORCHD_").lower() not in known}
            assert not unknown, name
            ports = {port["containerPort"] for port in container["ports"]}
            for setting in ("DISTORCHD_LISTEN_ADDRESS", "DISTORCHD_METRICS_ADDRESS"):
                port = int(settings(container)[setting].rpartition(":")[2])
                assert port in ports or name == "distorchd" and len(ports) == 1
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                action = container[probe].get("grpc") or container[probe]["httpGet"]
                assert action["port"] in ports | {port["name"] for port in container["ports"]}
                # Kubernetes' gRPC probes speak no TLS.
                assert ("grpc" in container[probe]) != ("DISTORCHD_TLS_CERT" in settings(container))
            grace = spec.get("terminationGracePeriodSeconds")
            if grace is not None:
                before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
                assert grace >= before + int(settings(container)["DISTORCHD_DRAIN_SECONDS"]) + 10


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_daemon_runs_with_an_overlays_settings(overlay, start_daemon, tmp_path, monkeypatch):
    container = daemon_container(kustomize(KUBERNETES / "overlays" / overlay))
    for variable, value in settings(container).items():
        monkeypatch.setenv(variable, str(tmp_path) if variable.endswith("_DIR") else value)
    daemon = start_daemon()  # the addresses on its command line win
    assert daemon.ctl_json("plan", "shapes-sd1.safetensors")["fits"]
    # What probes and autoscalers ask for.
    pages = {path: urllib.request.urlopen(f"http://127.0.0.1:{daemon.ports['metrics']}{path}", timeout=10).read().decode()
             for path in ("/healthz", "/readyz", "/metrics")}
    scalers = "".join(file.read_text() for file in (KUBERNETES / "components").glob("[hk]*/*.yaml"))
    for metric in set(re.findall(r"distorchd_\w+", scalers)):
        assert f"\n{metric}{{" in pages["/metrics"], metric
    assert daemon.stop() == 0


def test_the_daemon_takes_the_secrets(start_daemon, tmp_path, monkeypatch):
    """TLS and tokens as the components mount them: files of the names that Kubernetes gives them."""
    container = daemon_container(with_components(tmp_path, "tls", "tokens"))
    secrets = {mount["mountPath"]: tmp_path / mount["name"] for mount in container["volumeMounts"]
               if mount["mountPath"].startswith("/etc/distorchd/")}
    for variable, value in settings(container).items():
        folder, _, name = value.rpartition("/")
        monkeypatch.setenv(variable, str(secrets[folder] / name) if folder in secrets else value)
    tls, tokens = (tmp_path / name for name in ("tls", "tokens"))
    tls.mkdir(), tokens.mkdir()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=distorchd", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tls / "tls.key",
                    "-out", tls / "tls.crt"], check=True, capture_output=True)
    shutil.copy(tls / "tls.crt", tls / "ca.crt")
    (tokens / "tokens.yaml").write_text("tokens: [{name: alice, role: admin, token: a-token-for-this-test-alone-0123456789}]\n")
    (tmp_path / "token").write_text("a-token-for-this-test-alone-0123456789\n")

    daemon = start_daemon()
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        path = container[probe]["httpGet"]["path"]
        assert urllib.request.urlopen(f"http://127.0.0.1:{daemon.ports['metrics']}{path}", timeout=10).status == 200
    client = [f"--tls_ca={tls / 'ca.crt'}", f"--tls_cert={tls / 'tls.crt'}", f"--tls_key={tls / 'tls.key'}"]
    assert daemon.ctl(*client, f"--auth_token_file={tmp_path / 'token'}", "devices").returncode == 0
    assert "UNAUTHENTICATED" in daemon.ctl(*client, "devices").stderr
    assert "UNAVAILABLE" in daemon.ctl("--timeout=10", "devices").stderr


def test_the_rules_become_objects_of_the_operator():
    script = ROOT / "deploy" / "prometheus" / "prometheus-rules.sh"
    objects = list(yaml.safe_load_all(subprocess.run(["bash", script], capture_output=True, text=True, check=True).stdout))
    groups = [group for item in objects for group in item["spec"]["groups"]]
    files = sorted((ROOT / "deploy" / "prometheus").glob("*.rules.yml"))
    assert groups == [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    assert {(item["apiVersion"], item["kind"]) for item in objects} == {("monitoring.coreos.com/v1", "PrometheusRule")}
