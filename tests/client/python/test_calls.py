"""Deadlines, cancelling, retries and errors, against a server of the test's own."""

import asyncio
import threading

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

import distorchd
from distorchd import aio
from distorchd import distorch_pb2 as pb
from fake_server import FakeServer

FAST = distorchd.RetryPolicy(initial_seconds=0.001, max_seconds=0.002)


def failing(times, code, answer, trailer=()):
    """Fails so often, then answers."""
    left = iter(range(times))

    def run(request, context):
        if next(left, None) is not None:
            context.set_trailing_metadata(trailer)
            context.abort(code, "not yet")
        return answer
    return run


def retry_info(seconds):
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))))
    return (("grpc-status-details-bin", status_pb2.Status(code=8, details=[detail]).SerializeToString()),)


def loaded(request, context):
    yield pb.LoadCheckpointEvent(progress=pb.LoadProgress(phase="weights", bytes_done=1, bytes_total=2))
    yield pb.LoadCheckpointEvent(done=pb.LoadCheckpointResponse(model="m", clip="c", vae="v", family="sd1"))


def checkpoint_of(client):
    return distorchd.Checkpoint(client, "m", "c", "v", pb.LoadCheckpointResponse(model="m", clip="c", vae="v"))


def test_tries_again_while_unavailable_what_changes_nothing():
    answer = pb.ListModelsResponse(models=[pb.ModelInfo(handle="m")])
    with FakeServer({"ListModels": failing(3, grpc.StatusCode.UNAVAILABLE, answer)}) as server:
        with distorchd.Client(server.address, retry=FAST) as client:
            assert client.list_models()[0].handle == "m"
        assert len(server.requests) == 4


def test_gives_up_with_the_servers_text_after_its_attempts():
    with FakeServer({"ListModels": failing(9, grpc.StatusCode.UNAVAILABLE, None)}) as server:
        with distorchd.Client(server.address, retry=FAST) as client, pytest.raises(distorchd.UnavailableError, match="not yet"):
            client.list_models()
        assert len(server.requests) == 4


def test_sends_once_what_changes_something():
    with FakeServer({"Unload": failing(1, grpc.StatusCode.UNAVAILABLE, pb.UnloadResponse())}) as server:
        with distorchd.Client(server.address, retry=FAST) as client, pytest.raises(distorchd.UnavailableError):
            client.unload(all=True)
        assert len(server.requests) == 1


def test_waits_as_long_as_the_server_asks_whatever_the_call():
    answers = {"Unload": failing(1, grpc.StatusCode.RESOURCE_EXHAUSTED, pb.UnloadResponse(handles_closed=3), retry_info(0.02))}
    with FakeServer(answers) as server, distorchd.Client(server.address, retry=FAST) as client:
        assert client.unload(all=True).handles_closed == 3
        assert len(server.requests) == 2
    with FakeServer({"Unload": failing(1, grpc.StatusCode.RESOURCE_EXHAUSTED, None, retry_info(90))}) as server:
        with distorchd.Client(server.address, timeout=5) as client, pytest.raises(distorchd.ResourceExhaustedError) as error:
            client.unload(all=True)  # not before the deadline, so at once
        assert error.value.retry_after == 90


def test_pauses_grow_vary_and_are_bounded():
    policy = distorchd.RetryPolicy(initial_seconds=1, max_seconds=5)
    assert [policy.pause(tried, None, lambda: 1.0) for tried in (1, 2, 3, 4)] == [1, 2, 4, 5]
    assert policy.pause(1, None, lambda: 0.0) == 0.5
    assert policy.pause(1, 7.0, lambda: 0.0) == 7


def test_errors_carry_code_text_and_request():
    def refuse(request, context):
        context.send_initial_metadata((("x-request-id", "r1"),))
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "unet_donor_device: \"cuda:9\" is not a device")

    with FakeServer({"PlanCheckpoint": refuse}) as server, distorchd.Client(server.address) as client:
        with pytest.raises(distorchd.InvalidArgumentError) as error:
            client.plan("a.safetensors", unet_donor_device="cuda:9")
    assert str(error.value) == "unet_donor_device: \"cuda:9\" is not a device"
    assert error.value.code == grpc.StatusCode.INVALID_ARGUMENT and error.value.request_id == "r1"


def test_nobody_there_is_unavailable():
    with distorchd.Client("127.0.0.1:1", retry=FAST) as client, pytest.raises(distorchd.UnavailableError):
        client.list_devices()


def test_sends_the_token_with_each_call(monkeypatch):
    answers = {"ListDevices": lambda request, context: pb.ListDevicesResponse(), "LoadCheckpointStream": loaded}
    with FakeServer(answers) as server:
        with distorchd.Client(server.address, token="s3cret") as client:
            client.list_devices()
            client.load("a.safetensors")
        monkeypatch.setenv("DISTORCHD_AUTH_TOKEN", "other")
        monkeypatch.setenv("DISTORCHD_ADDRESS", server.address)
        with distorchd.Client() as client:
            client.list_devices()
        assert [metadata.get("x-distorch-checkpoint") for _, _, metadata in server.requests] == [None, "a.safetensors", None]
        assert [metadata["authorization"] for _, _, metadata in server.requests] == [
            "Bearer s3cret", "Bearer s3cret", "Bearer other"]


def test_load_takes_the_nodes_fields_and_tells_of_progress():
    seen = []
    with FakeServer({"LoadCheckpointStream": loaded}) as server, distorchd.Client(server.address) as client:
        checkpoint = client.load("a.safetensors", unet_virtual_vram_gb=0, eject_models=False, progress=seen.append)
        request = server.requests[0][1]
    assert checkpoint.model == "m" and checkpoint.family == "sd1"
    assert seen == [distorchd.Progress("weights", 1, 2)]
    assert request.HasField("unet_virtual_vram_gb") and not request.HasField("clip_virtual_vram_gb")
    assert request.HasField("eject_models") and not request.eject_models
    with pytest.raises(TypeError, match="no field 'unet_vram'"):
        client.load("a.safetensors", unet_vram=4)
    with pytest.raises(TypeError, match="unet_virtual_vram_gb"):
        client.load("a.safetensors", unet_virtual_vram_gb="much")


def test_a_broken_stream_has_no_result():
    def cut(request, context):
        yield pb.LoadCheckpointEvent(progress=pb.LoadProgress(phase="open"))

    with FakeServer({"LoadCheckpointStream": cut}) as server, distorchd.Client(server.address) as client:
        with pytest.raises(RuntimeError, match="without a result"):
            client.load("a.safetensors")


def endless(cancelled):
    """An Infer that never ends, and says when it was cancelled."""
    def run(request, context):
        context.add_callback(cancelled.set)
        yield pb.InferEvent(phase="sample")
        cancelled.wait(30)
    return run


def test_a_canceller_ends_the_call_on_both_sides():
    cancelled, cancel = threading.Event(), distorchd.Canceller()
    with FakeServer({"Infer": endless(cancelled)}) as server, distorchd.Client(server.address) as client:
        with pytest.raises(distorchd.CancelledError):
            checkpoint_of(client).infer("x", cancel=cancel, progress=lambda progress: cancel.cancel())
        assert cancelled.wait(10)
        with pytest.raises(distorchd.CancelledError):
            checkpoint_of(client).infer("x", cancel=cancel)  # for good


def test_an_exception_of_the_callback_ends_the_call():
    cancelled = threading.Event()

    def stop(progress):
        raise KeyError("enough")

    with FakeServer({"Infer": endless(cancelled)}) as server, distorchd.Client(server.address) as client:
        with pytest.raises(KeyError, match="enough"):
            checkpoint_of(client).infer("x", progress=stop)
        assert cancelled.wait(10)


def test_a_deadline_ends_the_call():
    cancelled = threading.Event()
    with FakeServer({"Infer": endless(cancelled)}) as server, distorchd.Client(server.address, timeout=0.2) as client:
        with pytest.raises(distorchd.DeadlineExceededError):
            checkpoint_of(client).infer("x")
        assert cancelled.wait(10)


def test_a_wait_in_the_queue_is_no_step():
    def infer(request, context):
        yield pb.InferEvent(phase="queue")
        yield pb.InferEvent(queue=pb.QueueProgress(position=2, predicted_seconds=1.5))
        yield pb.InferEvent(queue=pb.QueueProgress(position=1))
        yield pb.InferEvent(progress=pb.StepProgress(step=1, steps=1))
        yield pb.InferEvent(result=pb.InferResult(seed=3))

    seen = []
    with FakeServer({"Infer": infer}) as server, distorchd.Client(server.address) as client:
        assert checkpoint_of(client).infer("x", priority=5, progress=seen.append).seed == 3
        assert server.requests[0][1].options.priority == 5
    assert seen == [distorchd.Progress("queue"), distorchd.Progress("queue", seconds=1.5, position=2),
                    distorchd.Progress("queue", position=1), distorchd.Progress("sample", 1, 1)]


def test_a_forgotten_conditioning_is_sent_whole():
    def sample(request, context):
        if request.positive_id:
            context.abort(grpc.StatusCode.NOT_FOUND, "positive_id: no such conditioning")
        yield pb.SampleEvent(latent=request.latent)

    prompt = distorchd.Conditioning(pb.Conditioning(cross_attention=pb.Tensor(dtype=pb.FLOAT32, shape=[1, 1, 1], data=b"1234")), "cond-1")
    with FakeServer({"Sample": sample}) as server, distorchd.Client(server.address) as client:
        checkpoint = checkpoint_of(client)
        assert checkpoint.sample(prompt, prompt, checkpoint.empty_latent(64, 32), steps=2).shape == (1, 4, 4, 8)
        assert server.requests[0][1].positive_id == "cond-1"
        assert server.requests[1][1].negative.cross_attention.data == b"1234"


@pytest.mark.parametrize("field", ["steps", "cfg", "denoise"])
def test_zero_is_no_silent_default(field):
    with pytest.raises(ValueError, match=field):
        checkpoint_of(None).infer("x", **{field: 0})


def test_the_end_of_the_block_unloads_but_what_others_use():
    def unload(request, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "in use")

    with FakeServer({"LoadCheckpointStream": loaded, "Unload": unload}) as server, distorchd.Client(server.address) as client:
        with client.load("a.safetensors"):
            pass
        assert list(server.requests[-1][1].handles) == ["m", "c", "v"]
        with pytest.raises(distorchd.FailedPreconditionError):
            client.load("a.safetensors").unload()


def test_unloads_what_is_left_when_a_handle_is_gone():
    def unload(request, context):
        if "c" in request.handles:
            context.abort(grpc.StatusCode.NOT_FOUND, "c")
        return pb.UnloadResponse(freed=[pb.DeviceFreed(device="cpu", bytes=5)], handles_closed=1)

    with FakeServer({"Unload": unload}) as server, distorchd.Client(server.address) as client:
        receipt = checkpoint_of(client).unload()
    assert receipt.handles_closed == 2 and [(f.device, f.bytes) for f in receipt.freed] == [("cpu", 10)]


def test_asyncio_retries_reports_and_cancels():
    cancelled = threading.Event()
    answers = {"ListModels": failing(2, grpc.StatusCode.UNAVAILABLE, pb.ListModelsResponse()), "LoadCheckpointStream": loaded,
               "Infer": endless(cancelled)}

    async def run(address):
        seen = []

        async def note(progress):
            seen.append(progress)

        async with aio.AsyncClient(address, retry=FAST, token="t") as client:
            assert list(await client.list_models()) == []
            checkpoint = await client.load("a.safetensors", progress=note)
            assert seen == [distorchd.Progress("weights", 1, 2)]
            task = asyncio.ensure_future(checkpoint.infer("x", progress=lambda progress: task.cancel()))
            with pytest.raises(asyncio.CancelledError):
                await task
            assert cancelled.wait(10)
            cancelled.clear()
            with pytest.raises(distorchd.DeadlineExceededError):
                await checkpoint.infer("x", timeout=0.1)

    with FakeServer(answers) as server:
        asyncio.run(run(server.address))
        assert all(metadata["authorization"] == "Bearer t" for _, _, metadata in server.requests)
    assert cancelled.wait(10)


@pytest.mark.parametrize("asks_for_ours", [False, True])
def test_tls_trusts_whom_it_was_told_to_and_shows_who_it_is(certificate, asks_for_ours):
    cert, key = certificate
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())], cert.read_bytes() if asks_for_ours else None,
                                              asks_for_ours)
    own = {"cert": cert, "key": str(key)} if asks_for_ours else {}
    with FakeServer({"ListModels": lambda request, context: pb.ListModelsResponse()}, credentials) as server:
        with distorchd.Client(server.address, tls=distorchd.Tls(ca=cert.read_bytes(), **own), token="t") as client:
            assert list(client.list_models()) == []
        strangers = [distorchd.Tls(), None] + ([distorchd.Tls(ca=cert)] if asks_for_ours else [])
        for tls in strangers:
            with distorchd.Client(server.address, tls=tls, retry=FAST) as client, pytest.raises(distorchd.UnavailableError):
                client.list_models()

        async def run():
            async with aio.AsyncClient(server.address, tls=distorchd.Tls(ca=cert, **own)) as client:
                assert list(await client.list_models()) == []
        asyncio.run(run())
    with pytest.raises(ValueError, match="go together"):
        distorchd.Tls(cert=cert)
