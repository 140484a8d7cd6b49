"""Who gets in, as what, and how the daemon is looked after: through the real programs, with certificates by openssl."""

import json
import os
import re
import signal
import socket
import stat
import subprocess

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from conftest import BIN, ROOT
from waiting import wait_until

DEMO = ROOT / "deploy" / "demo"
TOKENS = {"viewer": "vera-0123456789", "user": "ulf-0123456789", "admin": "ada-0123456789"}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PROMPT = "a secret garden behind the hedge"

VIEWER = {"ListDevices", "ListCheckpoints", "PlanCheckpoint", "ListModels", "ListLinks",
          "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics",
          "RepositoryIndex"}
USER = {"SetClipSkip", "Infer", "EncodeText", "Sample", "Denoise", "DecodeLatent", "EncodeImage", "ModelInfer",
        "ModelStreamInfer"}
OPEN = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def openssl(folder, *args):
    subprocess.run(["openssl", *map(str, args)], cwd=folder, check=True, capture_output=True)


def make_certificate(folder, name, ca):
    """NAME.pem and NAME.key, signed by CA.pem; usable on loopback by server and client."""
    (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
            "-subj", f"/CN={name}")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial",
            "-days", "2", "-out", f"{name}.pem", "-extfile", f"{name}.ext")


def make_authority(folder, name):
    openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem",
            "-days", "2", "-subj", f"/CN={name}")


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    for ca in ("ca", "other-ca"):
        make_authority(folder, ca)
    for name in ("server", "server2", "alice"):
        make_certificate(folder, name, "ca")
    make_certificate(folder, "mallory", "other-ca")
    return folder


def write_tokens(path, tokens=TOKENS, mode=0o600):
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"tokens": [{"name": role + "-name", "role": role, "token": token}
                                          for role, token in tokens.items()]}))
    new.chmod(mode)
    new.rename(path)  # as tools that deliver secrets do


def call(channel, method, metadata=(), request=b""):
    """A call by its bytes, of any shape: its final status and trailing metadata."""
    invoke = channel.unary_stream(method)(request, metadata=metadata, timeout=30)
    try:
        for _ in invoke:
            pass
    except grpc.RpcError:
        pass
    return invoke.code(), invoke.details(), dict(invoke.trailing_metadata())


def methods(channel):
    """The full names of all methods that the server has."""
    requests = [reflection_pb2.ServerReflectionRequest(list_services="")]
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    services = [s.name for s in next(stub.ServerReflectionInfo(iter(requests), timeout=30)).list_services_response.service]
    for service in sorted(set(services) - OPEN):
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=service)
        answer = next(stub.ServerReflectionInfo(iter([request]), timeout=30)).file_descriptor_response
        for text in answer.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(text)
            for declared in file.service:
                if f"{file.package}.{declared.name}" == service:
                    yield from (f"/{service}/{method.name}" for method in declared.method)


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


def test_every_method_asks_for_its_role(start_daemon, tmp_path):
    tokens = tmp_path / "tokens.yaml"
    write_tokens(tokens)
    daemon = start_daemon(f"--auth_tokens_file={tokens}")
    with grpc.insecure_channel(daemon.address) as channel:
        names = list(methods(channel))
        assert len(names) >= 16
        for name in names:
            method = name.rsplit("/", 1)[1]
            allowed = {"viewer", "user", "admin"} if method in VIEWER else {"user", "admin"} if method in USER else {"admin"}
            assert call(channel, name)[0] == grpc.StatusCode.UNAUTHENTICATED, name
            assert call(channel, name, bearer("wrong-0123456789"))[0] == grpc.StatusCode.UNAUTHENTICATED, name
            for role, token in TOKENS.items():
                code, text, _ = call(channel, name, bearer(token))
                if role in allowed:
                    assert code not in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED), (name, role, text)
                else:
                    assert code == grpc.StatusCode.PERMISSION_DENIED, (name, role)
                    assert f"{role}-name has the role {role}" in text
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)
        assert health.status == health_pb2.HealthCheckResponse.SERVING

    assert daemon.ctl("models").returncode == 1
    token_file = tmp_path / "admin.token"
    token_file.write_text(TOKENS["admin"] + "\n")
    loaded = daemon.ctl_json("load", "shapes-sd1.safetensors", f"--token_file={token_file}")
    refused = daemon.ctl("infer", f"--prompt={PROMPT}", "--width=64", "--height=64", f"--output={tmp_path}/x.png")
    assert "UNAUTHENTICATED" in refused.stderr
    environment = {**os.environ, "DISTORCH_TOKEN": TOKENS["user"]}
    drawn = subprocess.run(
        [BIN / "distorchctl", f"--address={daemon.address}", "infer", f"--prompt={PROMPT}", "--steps=1", "--width=64",
         "--height=64", f"--output={tmp_path}/x.png"], env=environment, capture_output=True, text=True, timeout=300)
    assert drawn.returncode == 0 and loaded["model"], drawn.stderr
    daemon.stop()
    log = daemon.log.read_text()
    assert '"client":"user-name"' in log
    for secret in (*TOKENS.values(), "wrong-0123456789", PROMPT):
        assert secret not in log


def test_tokens_are_read_again_when_they_change_and_on_sighup(start_daemon, tmp_path):
    tokens = tmp_path / "tokens.yaml"
    write_tokens(tokens)
    daemon = start_daemon(f"--auth_tokens_file={tokens}")
    with grpc.insecure_channel(daemon.address) as channel:
        def code(token):
            return call(channel, "/distorch.v1.ModelService/ListModels", bearer(token))[0]

        assert code(TOKENS["admin"]) == grpc.StatusCode.OK
        write_tokens(tokens, {"admin": "second-0123456789"})
        wait_until(lambda: code("second-0123456789") == grpc.StatusCode.OK, "the new token counts", seconds=30)
        assert code(TOKENS["admin"]) == grpc.StatusCode.UNAUTHENTICATED

        tokens.write_text("tokens: [{name: x, role: emperor, token: hush-hush}]")
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "the tokens stay as they were" in daemon.log.read_text(), "the wrong file is in the log", seconds=30)
        assert code("second-0123456789") == grpc.StatusCode.OK
        assert "hush-hush" not in daemon.log.read_text()

        write_tokens(tokens, mode=0o644)
        wait_until(lambda: code(TOKENS["admin"]) == grpc.StatusCode.OK, "the third file counts", seconds=30)
        assert "everyone on this machine can read the tokens" in daemon.log.read_text()
        assert '"signal":"HUP"' in daemon.log.read_text()


def channel_with(daemon, pki, ca, own=None):
    read = lambda name: (pki / name).read_bytes()  # noqa: E731
    own = (read(f"{own}.key"), read(f"{own}.pem")) if own else (None, None)
    return grpc.secure_channel(daemon.address, grpc.ssl_channel_credentials(read(f"{ca}.pem"), *own))


def lists_models(channel):
    return call(channel, "/distorch.v1.ModelService/ListModels")[0]


def test_tls_with_certificates_replaced_while_it_runs(start_daemon, tmp_path, pki):
    cert, key = tmp_path / "tls.pem", tmp_path / "tls.key"

    def install(name):
        for source, target in ((pki / f"{name}.key", key), (pki / f"{name}.pem", cert)):
            new = target.with_suffix(".new")
            new.write_bytes(source.read_bytes())
            new.rename(target)

    def served():
        seen = subprocess.run(["openssl", "s_client", "-connect", daemon.address, "-alpn", "h2"], input="",
                              capture_output=True, text=True, errors="replace", timeout=30).stdout
        return re.search(r"subject=CN = (\S+)", seen)[1]

    install("server")
    daemon = start_daemon("--listen_address=0.0.0.0:0", f"--tls_cert={cert}", f"--tls_key={key}")
    with channel_with(daemon, pki, "ca") as channel:
        assert lists_models(channel) == grpc.StatusCode.OK
    with channel_with(daemon, pki, "other-ca") as channel:
        assert lists_models(channel) == grpc.StatusCode.UNAVAILABLE
    with grpc.insecure_channel(daemon.address) as channel:
        assert lists_models(channel) == grpc.StatusCode.UNAVAILABLE
    assert daemon.ctl("models").returncode == 1
    assert daemon.ctl("models", f"--tls_ca={pki}/other-ca.pem").returncode == 1
    daemon.ctl_json("models", f"--tls_ca={pki}/ca.pem")

    assert served() == "server"
    install("server2")
    wait_until(lambda: served() == "server2", "the new certificate is served", seconds=30)


def test_mtls_lets_in_only_the_authoritys_clients(start_daemon, pki):
    daemon = start_daemon(f"--tls_cert={pki}/server.pem", f"--tls_key={pki}/server.key", f"--tls_client_ca={pki}/ca.pem")
    for own, code in (("alice", grpc.StatusCode.OK), ("mallory", grpc.StatusCode.UNAVAILABLE),
                      (None, grpc.StatusCode.UNAVAILABLE)):
        with channel_with(daemon, pki, "ca", own) as channel:
            assert lists_models(channel) == code, own
    daemon.ctl_json("models", f"--tls_ca={pki}/ca.pem", f"--tls_cert={pki}/alice.pem", f"--tls_key={pki}/alice.key")
    assert '"client":"alice"' in daemon.log.read_text()


def test_limits_and_traces(start_daemon):
    daemon = start_daemon("--max_batch=2", "--max_metadata_kb=2", "--max_receive_mb=1")
    with grpc.insecure_channel(daemon.address) as channel:
        code, _, trailers = call(channel, "/distorch.v1.ModelService/ListModels", (("traceparent", TRACEPARENT),))
        assert code == grpc.StatusCode.OK
        assert trailers["traceparent"] == TRACEPARENT
        assert trailers["x-request-id"] == TRACEPARENT[3:35]
        for malformed in ("00-0-0-0", TRACEPARENT.upper(), "00-" + 32 * "0" + TRACEPARENT[35:]):
            _, _, trailers = call(channel, "/distorch.v1.ModelService/ListModels", (("traceparent", malformed),))
            assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", trailers["traceparent"])
        big = call(channel, "/distorch.v1.ModelService/ListModels", (("x-padding", 8000 * "x"),))
        assert big[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call(channel, "/distorch.v1.ModelService/ListModels", (), bytes(2 << 20))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
        # model, clip and vae "m", batch_size 3.
        code, text, _ = call(channel, "/distorch.v1.InferenceService/Infer", (), b"\x0a\x01m\x12\x01m\x1a\x01m\x40\x03")
        assert (code, text) == (grpc.StatusCode.INVALID_ARGUMENT, "batch_size: 3 is not from 1 to 2, the server's --max_batch")
    lines = [json.loads(line) for line in daemon.log.read_text().splitlines()]
    assert any(line.get("trace_id") == TRACEPARENT[3:35] and line["msg"] == "request" for line in lines)


def test_systemd_is_told(start_daemon, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        daemon = start_daemon(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert systemd.recv(100) == b"READY=1"
        daemon.process.send_signal(signal.SIGTERM)
        assert systemd.recv(100) == b"STOPPING=1"
        assert daemon.process.wait(timeout=60) == 0


def check(*flags):
    return subprocess.run([BIN / "distorchd", "--check", "--simulate_devices=cuda:0=1GiB,cpu=8GiB", *flags],
                          capture_output=True, text=True, timeout=120)


def test_check_of_a_good_setup(tmp_path, pki):
    tokens = tmp_path / "tokens.yaml"
    write_tokens(tokens)
    config = tmp_path / "distorchd.yaml"
    config.write_text(f"checkpoint_dirs: [{DEMO}]\nauth_tokens_file: {tokens}\ntls_cert: {pki}/server.pem\n"
                      f"tls_key: {pki}/server.key\ntls_client_ca: {pki}/ca.pem\nlisten_address: 0.0.0.0:50051\n")
    result = check(f"--config={config}")
    assert result.returncode == 0, result.stdout + result.stderr
    for line in ("ok       tls                CN = server, until ", "clients need certificates of CN = ca",
                 "admin: 1, user: 1, viewer: 1", "cuda:0 (simulated): 1.0 GiB", "1 can be loaded",
                 "expected.safetensors: ", "distorchd can start: 0 failed, 1 warning\n"):
        assert line in result.stdout
    tokens.chmod(stat.S_IRUSR | stat.S_IROTH)
    assert "warning  auth_tokens_file   everyone" in check(f"--config={config}").stdout


@pytest.mark.parametrize("flags, lines", [
    (["--tls_cert={pki}/server.pem", "--tls_key={pki}/alice.key", "--checkpoint_dirs={pki}/none"],
     ["is not the key of the certificate", "failed   checkpoint_dirs    "]),
    (["--tls_cert={pki}/server.key", "--tls_key={pki}/server.key", "--port_file={pki}/none/ports"],
     ["has no certificate in PEM", "failed   port_file          "]),
    (["--auth_tokens_file={pki}/server.pem", "--simulate_devices=cuda:0=much"],
     ["failed   auth_tokens_file   ", "failed   devices            "]),
])
def test_check_of_bad_setups(pki, flags, lines):
    result = check(*(flag.format(pki=pki) for flag in flags))
    assert result.returncode == 1
    for line in (*lines, "distorchd cannot work so: 2 failed"):
        assert line in result.stdout


def test_check_of_unknown_settings(tmp_path):
    config = tmp_path / "distorchd.yaml"
    config.write_text("checkpoint_dir: /x\n")
    result = check(f"--config={config}")
    assert result.returncode == 1 and "unknown key 'checkpoint_dir'" in result.stderr


def test_what_is_open_to_the_network_needs_tls_or_a_word():
    result = subprocess.run([BIN / "distorchd", "--listen_address=0.0.0.0:0"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and "--allow_insecure_listen" in result.stderr


def test_top_shows_devices_and_models(daemon):
    assert {"devices", "models"} <= daemon.ctl_json("top", "--once").keys()
