"""Kills the daemon in every phase of its life, again and again: the next one knows every handle that a client was
given and has not given up, and makes it work again. `crashes.py --times=200` runs it at length."""

import argparse
import pathlib
import random
import tempfile
import threading

import grpc
from wire import Client, Daemon, pb

SPLITS = ["cuda:0,50%;cuda:1,50%", "cuda:0,30%;cuda:1,70%", "cuda:0,70%;cpu,30%"]
PHASES = ["start", "load", "loaded", "clip_skip", "infer", "unload", "restore"]


class Life:
    """One state folder over many daemons."""

    def __init__(self, folder, seed):
        self.folder = folder
        self.random = random.Random(seed)
        self.kept = set()  # handles a client was told of
        self.lost = set()  # those whose end it asked for, or that may have been ejected: known or not
        self.daemon = self.client = None

    def start(self, restore="lazy"):
        self.daemon = Daemon(self.folder, f"--state_dir={self.folder / 'state'}", f"--restore={restore}")
        self.client = Client(self.daemon.address)

    def kill(self):
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.client.channel.close()

    def kill_soon(self):
        """Within the next few milliseconds, whatever happens then."""
        timer = threading.Timer(self.random.random() * 0.03, self.daemon.process.kill)
        timer.start()
        return timer

    def load(self):
        loaded = self.client.load(self.random.choice(SPLITS), eject=False)
        self.kept |= {loaded.model, loaded.clip, loaded.vae}
        self.lost -= self.kept
        return loaded

    def check(self):
        """All that was kept is known, nothing is that never was, and one of them works."""
        states = self.client.states()
        assert self.kept <= states.keys(), (self.kept - states.keys(), states)
        assert "warning" not in self.daemon.log.read_text(), self.daemon.log.read_text()
        self.kept |= states.keys() & self.lost
        self.lost.clear()
        clips = sorted(handle for handle in self.kept if handle.startswith("clip-"))
        if clips:
            assert self.client.encode(self.random.choice(clips)).conditioning_id

    def live_until(self, phase):
        """Does what the phase is of, and is killed in it."""
        try:
            if phase == "start":
                return self.kill()
            loaded = self.load()
            if phase == "loaded":
                return self.kill()
            if phase == "load":
                request = self.client.load_request(self.random.choice(SPLITS), eject=False)
                self.kill_soon()
                for event in self.client.models.LoadCheckpointStream(request, timeout=60):
                    if event.HasField("done"):
                        self.kept |= {event.done.model, event.done.clip, event.done.vae}
            elif phase == "clip_skip":
                self.kill_soon()
                for layer in range(-2, -40, -1):
                    request = pb.SetClipSkipRequest(clip=loaded.clip, stop_at_layer=layer)
                    self.kept.add(self.client.models.SetClipSkip(request, timeout=60).clip)
            elif phase == "infer":
                self.kill_soon()
                for _ in self.client.infer(loaded, steps=50):
                    pass
            elif phase == "unload":
                handles = sorted(self.kept)[::2]
                self.kept -= set(handles)
                self.lost |= set(handles)
                self.kill_soon()
                self.client.unload(handles)
                self.lost -= set(handles)
            elif phase == "restore":
                self.kill()
                self.start(restore="eager")
                self.kill_soon().join()
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), error
        self.kill()


def run(folder, times, seed=0):
    life = Life(pathlib.Path(folder), seed)
    for i in range(times):
        life.start()
        life.check()
        life.live_until(PHASES[i % len(PHASES)])
    life.start()
    life.check()
    known = len(life.client.states())
    assert life.daemon.stop() == 0
    return known


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(f"{args.times} kills; {run(temporary, args.times, args.seed)} handles known at the end")
