"""What clients rely on: handles outlive the daemon, memory does not grow, queues tell and end, draining finishes."""

import itertools
import signal
import threading

import crashes
import grpc
import pytest
import soak
from conftest import Daemon
from grpc_health.v1 import health_pb2, health_pb2_grpc
from wire import Client, pb


@pytest.fixture
def start(tmp_path):
    """Starts a daemon with flags of the test's."""
    running = []

    def start(*flags):
        running.append(Daemon(tmp_path, *flags))
        return running[-1]

    yield start
    for daemon in running:
        daemon.process.kill()
        daemon.process.wait()


def test_knows_its_handles_whenever_it_is_killed(tmp_path):
    assert crashes.run(tmp_path, len(crashes.PHASES)) > 0


def test_memory_stays_flat_over_cycles(daemon):
    early, late = soak.cycle(daemon, 16)
    assert late - early < 8 << 20


def test_a_crowd_sees_promised_errors_only(daemon):
    codes = soak.crowd(daemon, clients=12, seconds=3)
    assert codes["infer", "OK"] > 0


def hold(client, loaded):
    """A request that computes until it is cancelled."""
    stream = client.infer(loaded, steps=10000, timeout=None)  # a deadline would be refused
    for event in stream:
        if event.HasField("progress"):
            return stream


def test_tells_the_place_in_the_queue_and_lets_urgent_requests_by(daemon):
    client = Client(daemon.address)
    loaded = client.load()
    running = hold(client, loaded)
    waiting = client.infer(loaded)
    positions = []

    def read():
        positions.extend(event.queue.position for event in waiting if event.HasField("queue"))

    first = next(event for event in waiting if event.HasField("queue"))
    assert first.queue.position == 1
    urgent = client.infer(loaded, priority=10)
    assert next(event for event in urgent if event.HasField("queue")).queue.position == 1
    reader = threading.Thread(target=read)
    reader.start()
    running.cancel()
    assert list(urgent)[-1].result.png
    reader.join(timeout=60)
    # A place is told again when the wait that is predicted for it changes.
    assert [position for position, _ in itertools.groupby(positions)] == [2, 1]


def test_a_deadline_that_cannot_be_met_is_refused_with_a_time_to_retry(daemon):
    client = Client(daemon.address)
    loaded = client.load()
    client.picture(loaded, steps=5)  # from here on, times are known
    with pytest.raises(grpc.RpcError) as refused:
        client.picture(loaded, steps=10000, timeout=5)
    assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "would take about" in refused.value.details()
    running = hold(client, loaded)
    with pytest.raises(grpc.RpcError) as refused:
        client.picture(loaded, steps=1, timeout=5)
    running.cancel()
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    details = dict(refused.value.trailing_metadata())["grpc-status-details-bin"]
    assert b"type.googleapis.com/google.rpc.RetryInfo" in details


def test_a_client_has_a_share_of_the_queue(start):
    daemon = start("--max_queued_per_client=2")
    greedy, other = Client(daemon.address, "greedy"), Client(daemon.address, "other")
    loaded = greedy.load()
    running = hold(greedy, loaded)
    waiting = greedy.infer(loaded)
    next(event for event in waiting if event.HasField("queue"))
    with pytest.raises(grpc.RpcError) as refused:
        greedy.picture(loaded)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "--max_queued_per_client" in refused.value.details()
    allowed = other.infer(loaded)
    next(event for event in allowed if event.HasField("queue"))
    running.cancel()
    assert list(waiting)[-1].result.png and list(allowed)[-1].result.png
    assert daemon.stop() == 0


def test_drains_running_and_queued_requests_and_takes_no_new_ones(daemon):
    client = Client(daemon.address)
    loaded = client.load()
    streams = [client.infer(loaded, steps=6) for _ in range(3)]
    for event in streams[0]:
        if event.HasField("progress"):
            break
    daemon.process.send_signal(signal.SIGTERM)
    health = health_pb2_grpc.HealthStub(client.channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
    for update in watch:
        if update.status == health_pb2.HealthCheckResponse.NOT_SERVING:
            break
    with pytest.raises(grpc.RpcError) as refused:
        client.models.ListModels(pb.ListModelsRequest(), timeout=60)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert all(list(stream)[-1].result.png for stream in streams)
    assert daemon.process.wait(timeout=60) == 0


def test_a_drain_that_takes_too_long_ends_what_runs(start):
    daemon = start("--drain_seconds=0.2")
    client = Client(daemon.address)
    loaded = client.load()
    running = hold(client, loaded)
    waiting = client.infer(loaded, steps=10000, timeout=None)
    daemon.process.send_signal(signal.SIGTERM)
    for stream in (running, waiting):
        with pytest.raises(grpc.RpcError) as ended:
            list(stream)
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
    assert daemon.process.wait(timeout=30) == 0
