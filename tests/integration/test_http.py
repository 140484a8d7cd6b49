"""HTTP with the real daemon: the image APIs with OpenAI's own client and as WebUI's clients speak, and the status page."""

import base64
import concurrent.futures
import json
import os
import shutil
import socket
import subprocess
import urllib.error
import urllib.request

import openai
import pytest

from test_python_client import write_lora
from waiting import wait_until

DEMO = "shapes-sd1.safetensors"
PROMPT = "a red circle above a blue square on a white background"
SMALL = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 2, "seed": 3}
LONG = {**SMALL, "steps": 600}


class Http:
    def __init__(self, daemon):
        self.port = daemon.ports["metrics"]
        self.url = f"http://127.0.0.1:{self.port}"

    def ask(self, path, body=None, headers=None):
        """Status and body, JSON read."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                status, text, kind = answer.status, answer.read(), answer.headers["Content-Type"]
        except urllib.error.HTTPError as error:
            status, text, kind = error.code, error.read(), error.headers["Content-Type"]
        return status, json.loads(text) if kind.startswith("application/json") else text

    def ok(self, path, body=None, headers=None):
        status, answer = self.ask(path, body, headers)
        assert status == 200, answer
        return answer

    def progress(self, reached):
        """The first progress that has `reached`."""
        def ask():
            state = self.ok("/sdapi/v1/progress")
            return state if reached(state) else None

        return wait_until(ask, "the progress that is waited for")


@pytest.fixture
def loaded(daemon):
    daemon.ctl_json("load", DEMO, "--unet_compute_device=cuda:0", "--unet_expert_mode_allocations=cuda:0,60%;cpu,40%")
    return daemon


@pytest.fixture
def http(loaded):
    return Http(loaded)


def grpc_picture(daemon, tmp_path, *flags):
    path = tmp_path / "grpc.png"
    daemon.ctl_json("infer", f"--prompt={PROMPT}", "--width=64", "--height=64", "--steps=2", "--seed=3", f"--output={path}", *flags)
    return path.read_bytes()


def test_openais_client_draws_what_grpc_draws(loaded, http, tmp_path):
    client = openai.OpenAI(base_url=http.url + "/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == [DEMO]
    assert client.models.retrieve(DEMO) == client.models.list().data[0]
    with pytest.raises(openai.NotFoundError, match="model: 'sub/other.safetensors' is not loaded") as missing:
        client.models.retrieve("sub/other.safetensors")
    assert missing.value.code == "not_found"
    extra = {"steps": 2, "seed": 3, "cfg": 8.0}
    drawn = client.images.generate(model=DEMO, prompt=PROMPT, size="64x64", n=1, extra_body=extra)
    expected = grpc_picture(loaded, tmp_path, "--cfg=8")
    assert base64.b64decode(drawn.data[0].b64_json) == expected

    events = list(client.images.generate(model=DEMO, prompt=PROMPT, size="64x64", stream=True, partial_images=1, extra_body=extra))
    assert len(events) > 1 and {event.type for event in events[:-1]} == {"image_generation.partial_image"}
    assert events[-1].type == "image_generation.completed"
    assert base64.b64decode(events[-1].b64_json) == expected

    edited = client.images.edit(model=DEMO, image=expected, prompt="a green star", size="64x64", extra_body={**extra, "steps": 4})
    assert base64.b64decode(edited.data[0].b64_json) not in (b"", expected)

    with pytest.raises(openai.BadRequestError, match="steps: 0 is not from") as wrong:
        client.images.generate(model=DEMO, prompt=PROMPT, extra_body={"steps": 0})
    assert wrong.value.param == "steps"
    with pytest.raises(openai.NotFoundError, match="is not loaded"):
        client.images.generate(model="other.safetensors", prompt=PROMPT)


def test_webuis_requests_draw(loaded, http, tmp_path):
    answer = http.ok("/sdapi/v1/txt2img", {**SMALL, "cfg_scale": 8, "sampler_name": "Euler"})
    picture = answer["images"][0]
    assert base64.b64decode(picture) == grpc_picture(loaded, tmp_path, "--cfg=8")
    assert json.loads(answer["info"])["seed"] == 3 and answer["parameters"]["steps"] == 2

    again = http.ok("/sdapi/v1/img2img", {**SMALL, "init_images": [picture], "mask": picture, "denoising_strength": 0.5,
                                          "n_iter": 2, "batch_size": 2})
    assert len(set(again["images"])) == 4 and json.loads(again["info"])["all_seeds"] == [3, 3, 4, 4]

    assert [model["title"] for model in http.ok("/sdapi/v1/sd-models")] == [DEMO]
    assert http.ok("/sdapi/v1/options")["sd_model_checkpoint"] == DEMO
    assert http.ok("/sdapi/v1/loras") == []
    for scheduler in http.ok("/sdapi/v1/schedulers"):
        http.ok("/sdapi/v1/txt2img", {**SMALL, "steps": 1, "scheduler": scheduler["label"]})


def test_webuis_prompts_name_adapters(start_daemon, tmp_path):
    loras = tmp_path / "loras"
    (loras / "styles").mkdir(parents=True)
    write_lora(loras / "styles" / "ink.safetensors")
    daemon = start_daemon(f"--lora_dirs={loras}")
    daemon.ctl_json("load", DEMO, "--unet_compute_device=cuda:0")
    http = Http(daemon)
    small = {**SMALL, "cfg_scale": 8}
    plain = http.ok("/sdapi/v1/txt2img", small)["images"][0]
    before = daemon.ctl_json("models")
    tagged = {**small, "prompt": f"{PROMPT}<lora:ink:0.8>"}
    answer = http.ok("/sdapi/v1/txt2img", tagged)
    assert json.loads(answer["info"])["prompt"] == tagged["prompt"]
    edited = http.ok("/sdapi/v1/img2img", {**tagged, "init_images": [plain]})["images"]
    assert edited != http.ok("/sdapi/v1/img2img", {**small, "init_images": [plain]})["images"]
    assert daemon.ctl_json("models") == before  # they were the requests' own

    for tag, status, message in [("<lora:inc>", 404, "styles/ink.safetensors"), ("<lora:ink:much>", 422, "'ink:much'"),
                                 ("<lora:ink:1000>", 422, "strength")]:
        got, error = http.ask("/sdapi/v1/txt2img", {**small, "prompt": f"a fox {tag}"})
        assert got == status and message in error["detail"], error

    inked = daemon.ctl_json("lora", "styles/ink.safetensors", "--strength_model=0.8", "--strength_clip=0.8")
    expected = grpc_picture(daemon, tmp_path, "--cfg=8", f"--model={inked['model']}", f"--clip={inked['clip']}")
    assert base64.b64decode(answer["images"][0]) == expected != base64.b64decode(plain)


def test_every_sampler_that_webui_names_is_there(http):
    for sampler in http.ok("/sdapi/v1/samplers"):
        http.ok("/sdapi/v1/txt2img", {**SMALL, "steps": 1, "sampler_name": sampler["name"]})


def test_progress_interrupt_and_clients_that_leave(loaded, http):
    assert http.ok("/sdapi/v1/progress")["state"]["job"] == ""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        drawing = pool.submit(http.ok, "/sdapi/v1/txt2img", LONG)
        state = http.progress(lambda state: state["current_image"])
        assert 0 < state["progress"] < 1 and state["state"]["job"] == "txt2img" and state["state"]["sampling_steps"] == 600
        assert base64.b64decode(state["current_image"]).startswith(b"\x89PNG")
        http.ok("/sdapi/v1/interrupt", b"")
        answer = drawing.result(timeout=60)
    assert answer["images"] == [] and json.loads(answer["info"])["interrupted"]

    body = json.dumps(LONG).encode()
    with socket.create_connection(("127.0.0.1", http.port)) as client:
        client.sendall(b"POST /sdapi/v1/txt2img HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                       b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        http.progress(lambda state: state["state"]["job"])
    http.progress(lambda state: not state["state"]["job"])
    assert loaded.log.read_text().count('"code":"CANCELLED"') == 2  # the interrupted one's, and this one's


def test_a_full_queue_says_when_to_come_again(start_daemon):
    daemon = start_daemon("--queue_limit=1")
    daemon.ctl_json("load", DEMO, "--unet_compute_device=cuda:0")
    http = Http(daemon)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = [pool.submit(http.ask, "/sdapi/v1/txt2img", LONG)]
        http.progress(lambda state: state["state"]["sampling_step"])
        running.append(pool.submit(http.ask, "/sdapi/v1/txt2img", LONG))
        wait_until(lambda: any(device["queue_length"] for device in http.ok("/api/status")["devices"]), "one who waits")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(
                http.url + "/v1/images/generations", json.dumps({"prompt": "a"}).encode(), {"Content-Type": "application/json"}))
        assert refused.value.code == 429 and int(refused.value.headers["Retry-After"]) >= 1
        http.ok("/sdapi/v1/interrupt", b"")
        assert [answer.result(timeout=60)[0] for answer in running] == [200, 200]


def test_bad_requests_are_told_what_is_wrong(http):
    for path, body, headers, status, where in [
        ("/v1/images/generations", b"{", {}, 400, lambda a: a["error"]["message"]),
        ("/v1/images/generations", {"prompt": 1}, {}, 400, lambda a: a["error"]["message"]),
        ("/v1/images/generations", {"prompt": "a"}, {"Content-Type": "text/plain"}, 400, lambda a: a["error"]["message"]),
        ("/v1/images/generations", {"prompt": "a"}, {"Host": "evil.example"}, 403, lambda a: a["error"]["message"]),
        ("/v1/images/generations", {"prompt": "a"}, {"Origin": "https://evil.example"}, 403, lambda a: a["error"]["message"]),
        ("/v1/images/edits", b"x", {}, 415, lambda a: a["error"]["message"]),
        ("/v1/images/variations", {}, {}, 404, lambda a: a["error"]["message"]),
        ("/v1/models/", None, {}, 404, lambda a: a["error"]["message"]),
        ("/v1/models/../../etc/passwd", None, {}, 404, lambda a: a["error"]["message"]),
        (f"/v1/models/{DEMO}", {}, {}, 405, lambda a: a["error"]["message"]),
        ("/v1/images/generations", None, {}, 405, lambda a: a["error"]["message"]),
        ("/v1/images/generations", b"x" * ((64 << 20) + 1), {}, 413, lambda a: a["error"]["message"]),
        ("/sdapi/v1/txt2img", {"steps": "many"}, {}, 422, lambda a: a["detail"]),
        ("/sdapi/v1/txt2img", {"sampler_name": "No such"}, {}, 422, lambda a: a["detail"]),
        ("/sdapi/v1/img2img", {"init_images": [base64.b64encode(b"no picture").decode()]}, {}, 422, lambda a: a["detail"]),
        ("/sdapi/v1/none", {}, {}, 404, lambda a: a["detail"]),
        ("/../../etc/passwd", None, {}, 404, lambda a: a),
        ("/api/image?number=1", None, {}, 404, lambda a: a["error"]),
    ]:
        try:
            got, answer = http.ask(path, body, headers)
        except urllib.error.URLError:  # cut off while it still sends what is too much
            assert status == 413
            continue
        assert got == status and where(answer), (path, got, answer)
    assert http.ask("/healthz")[0] == 200


def test_tokens_and_addresses_decide_who_may_draw(start_daemon, tmp_path):
    tokens = tmp_path / "tokens.yaml"
    tokens.touch(mode=0o600)
    tokens.write_text("tokens:\n- {name: looker, role: viewer, token: looker-0123456789}\n- {name: painter, role: user, token: painter-0123456789}\n")
    http = Http(start_daemon(f"--auth_tokens_file={tokens}"))
    bearer = lambda token: {"Authorization": f"Bearer {token}-0123456789"}
    assert http.ask("/metrics")[0] == http.ask("/")[0] == 200
    assert http.ask("/api/status")[0] == http.ask("/v1/images/generations", {"prompt": "a"})[0] == 401
    assert http.ask("/api/status", headers=bearer("looker"))[0] == 200
    assert http.ask("/v1/images/generations", {"prompt": "a"}, bearer("looker"))[0] == 403
    assert http.ask("/v1/images/generations", {"prompt": "a"}, bearer("painter"))[0] == 404  # nothing is loaded
    assert http.ask("/sdapi/v1/txt2img", {"prompt": "a"}, bearer("painter"))[0] == 404
    assert http.ask("/sdapi/v1/txt2img", {"prompt": "a <lora:x>"}, bearer("painter"))[0] == 403  # ApplyLora is an admin's

    outward = Http(start_daemon("--metrics_address=0.0.0.0:0"))
    assert outward.ask("/")[0] == 200 and outward.ask("/v1/models")[0] == 404


def test_the_page_shows_what_is_loaded(start_daemon, tmp_path):
    daemon = start_daemon("--page_images=2")
    daemon.ctl_json("load", DEMO, "--unet_compute_device=cuda:0", "--unet_expert_mode_allocations=cuda:0,60%;cuda:1,40%")
    http = Http(daemon)
    picture = grpc_picture(daemon, tmp_path)
    status = http.ok("/api/status")
    assert [device["name"] for device in status["devices"]] == ["cuda:0", "cuda:1", "cpu"]
    model = next(model for model in status["models"] if model["kind"] == "model")
    assert [device["device"] for device in model["devices"]] == ["cuda:0", "cuda:1"]
    assert all(device["blocks"] > 0 and device["planned_bytes"] == device["measured_bytes"] for device in model["devices"])
    blocks = http.ok(f"/api/blocks?handle={model['handle']}")["blocks"]
    for device in model["devices"]:
        there = [block["bytes"] for block in blocks if block["device"] == device["device"]]
        assert (len(there), sum(there)) == (device["blocks"], device["planned_bytes"])
    assert http.ask("/api/blocks?handle=none")[0] == 404
    assert http.ok(f"/api/image?number={status['images'][0]['number']}") == picture

    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium")
    dump = subprocess.run(
        [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}", "--enable-logging=stderr",
         "--virtual-time-budget=3000", "--dump-dom", f"{http.url}/#{model['handle']}"],
        capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(tmp_path)})
    assert ">live<" in dump.stdout and DEMO in dump.stdout and model["handle"] in dump.stdout
    assert f">{len(blocks)} blocks, in their order<" in dump.stdout and f'title="{blocks[0]["name"]}: ' in dump.stdout
    assert 'aria-label="cuda:1: model ' in dump.stdout and 'alt="Picture 1, seed 3"' in dump.stdout
    assert "Content Security Policy" not in dump.stderr and "Uncaught" not in dump.stderr, dump.stderr
