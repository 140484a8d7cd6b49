#!/usr/bin/env python3
"""Clang's thread-safety analysis of what only GCC compiles.

usage: thread_safety.py COMPILE_COMMANDS.json [CLANGS_COMPILE_COMMANDS.json]

Checks, without generating code, every source of the first file under lib/, server/ and client/ that locks: one that names
a mutex itself or in the header of its name. Those in the second are left out: Clang analyses them where it builds them.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

LOCKS = re.compile(r"absl::Mutex|std::mutex|ABSL_GUARDED_BY")
INCLUDED = re.compile(r'^#include "(.*\.cc)"$', re.MULTILINE)
FLAGS_WITH_VALUE = {"-I", "-isystem", "-D", "-include"}


def locks(source):
    header = source.with_suffix(".h")
    return any(LOCKS.search(path.read_text()) for path in (source, header) if path.exists())


def read_entries(path):
    """The entries of a compile_commands.json by their source; of sources that are compiled together, by each of them."""
    entries = {}
    for entry in json.loads(pathlib.Path(path).read_text()):
        source = pathlib.Path(entry["file"])
        together = INCLUDED.findall(source.read_text()) if source.parent.name == "Unity" else []
        entries.update(dict.fromkeys(map(pathlib.Path, together or [source]), entry))
    return entries


def include_and_define_flags(command):
    """The flags that decide what a file means; the precompiled header is GCC's own and only saves time."""
    flags = []
    words = iter(shlex.split(command))
    for word in words:
        if word in FLAGS_WITH_VALUE:
            value = next(words)
            if word != "-include":
                flags += [word, value]
        elif word.startswith(("-I", "-D", "-std=")):
            flags.append(word)
    return flags


def check(entry):
    result = subprocess.run(
        ["clang++-14", "-fsyntax-only", "-Wthread-safety", "-Werror=thread-safety",
         *include_and_define_flags(entry["command"]), entry["file"]],
        cwd=entry["directory"], capture_output=True, text=True)
    return entry["file"], result.returncode, result.stderr


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    houses = [root / "lib", root / "server", root / "client"]
    built = read_entries(sys.argv[2]) if len(sys.argv) > 2 else {}
    entries = {source: entry for source, entry in read_entries(sys.argv[1]).items()
               if source not in built and any(house in source.parents for house in houses) and locks(source)}
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, status, messages in pool.map(check, entries.values()):
            if status != 0:
                failed += 1
                print(messages, file=sys.stderr)
            print(f"{'FAILED' if status else 'ok'} {os.path.relpath(name, root)}", flush=True)
    print(f"{len(entries) - failed} of {len(entries)} files keep their locks")
    sys.exit(1 if failed or not entries else 0)


if __name__ == "__main__":
    main()
