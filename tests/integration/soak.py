"""What a daemon goes through in a long life, in short: cycles of load, infer and unload with its memory watched, then
many clients at once that load, infer, cancel and unload. `soak.py` runs 1,000 cycles, then 64 clients for 5 minutes."""

import argparse
import collections
import pathlib
import random
import tempfile
import threading
import time

import grpc
from wire import Client, Daemon, pb

MIB = 1 << 20
SPLITS = ["cuda:0,50%;cuda:1,50%", "cuda:0,30%;cuda:1,70%", "cuda:0,70%;cpu,30%"]
Code = grpc.StatusCode
# What the contract promises a client whose handles others load and unload, by force, too.
PROMISED = {Code.OK, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED, Code.ABORTED,
            Code.UNAVAILABLE}  # the last: evicted just as it was to be used


def resident_bytes(daemon):
    status = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def cycle(daemon, count):
    """Loads, draws and unloads `count` times; resident bytes after a tenth of them, and at the end."""
    client = Client(daemon.address)
    picture = None
    for i in range(count):
        loaded = client.load()
        drawn = client.picture(loaded)
        assert picture in (None, drawn), "another picture than the first"
        picture = drawn
        client.unload()
        assert client.accelerator_bytes() == 0
        if i == count // 10:
            early = resident_bytes(daemon)
    return early, resident_bytes(daemon)


class Crowd:
    def __init__(self, daemon, clients, seconds):
        self.daemon = daemon
        self.end = time.monotonic() + seconds
        self.codes = collections.Counter()
        self.unexpected = []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.live, args=(i,)) for i in range(clients)]

    def run(self):
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            thread.join(timeout=self.end - time.monotonic() + 180)
            assert not thread.is_alive(), "a client is stuck"
        assert not self.unexpected, self.unexpected[:5]

    def live(self, number):
        chance = random.Random(number)
        client = Client(self.daemon.address, f"client-{number % 8}")
        loaded = pb.LoadCheckpointResponse(model="model-none", clip="clip-none", vae="vae-none")
        while time.monotonic() < self.end:
            what = chance.choices(["load", "infer", "cancel", "deadline", "list", "unload", "force"],
                                  [3, 8, 4, 3, 3, 1, 0.3])[0]
            allowed = set(PROMISED)
            try:
                if what == "load":
                    loaded = client.load(chance.choice(SPLITS), eject=chance.random() < 0.3)
                elif what == "infer":
                    client.picture(loaded, steps=chance.randint(1, 3), priority=chance.randint(-1, 1))
                elif what == "cancel":
                    allowed.add(Code.CANCELLED)
                    stream = client.infer(loaded, steps=20)
                    threading.Timer(chance.random() / 2, stream.cancel).start()
                    collections.deque(stream, maxlen=0)
                elif what == "deadline":
                    allowed.add(Code.DEADLINE_EXCEEDED)
                    client.picture(loaded, steps=5, timeout=chance.random() * 2)
                elif what == "list":
                    client.states()
                elif what == "unload":
                    client.unload([loaded.model, loaded.clip, loaded.vae])
                else:
                    client.unload([loaded.model], force=True)
                code = Code.OK
            except grpc.RpcError as error:
                code = error.code()
                if code not in allowed:
                    with self.lock:
                        self.unexpected.append(f"{what}: {code} {error.details()}")
            with self.lock:
                self.codes[what, code.name] += 1


def crowd(daemon, clients, seconds):
    """How often each kind of call had each code."""
    together = Crowd(daemon, clients, seconds)
    together.run()
    client = Client(daemon.address)
    client.unload(force=True)
    assert client.accelerator_bytes() == 0
    client.picture(client.load())
    client.unload()
    return together.codes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=300)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        daemon = Daemon(folder, f"--state_dir={folder / 'state'}", "--log_level=warning")
        start = time.monotonic()
        early, late = cycle(daemon, args.cycles)
        print(f"{args.cycles} cycles in {time.monotonic() - start:.0f} s; resident MiB after a tenth "
              f"{early / MIB:.1f}, at the end {late / MIB:.1f}", flush=True)
        codes = crowd(daemon, args.clients, args.seconds)
        print(f"{args.clients} clients, {args.seconds:.0f} s: {sum(codes.values())} calls; "
              f"resident MiB {resident_bytes(daemon) / MIB:.1f}")
        for (what, code), count in sorted(codes.items()):
            print(f"  {what:9} {code:20} {count}")
        print("stopped with", daemon.stop())


if __name__ == "__main__":
    main()
