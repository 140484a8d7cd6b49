"""Adds to the package what is generated from the wire contract: its descriptors and their type stubs."""

import pathlib
import shutil
import sys

import setuptools
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent
CONTRACTS = [HERE / "distorch.proto", HERE.parents[1] / "proto" / "distorch.proto"]  # a source archive's, a clone's


def contract() -> pathlib.Path:
    for path in CONTRACTS:
        if path.exists():
            return path
    sys.exit(f"no distorch.proto at {' or '.join(map(str, CONTRACTS))}: build inside a clone of distorchd")


def generate(folder: pathlib.Path) -> None:
    from grpc_tools import protoc

    path = contract()
    if protoc.main(["protoc", f"--proto_path={path.parent}", "--include_source_info",
                    f"--descriptor_set_out={folder / 'distorch.binpb'}", f"--pyi_out={folder}", str(path)]) != 0:
        sys.exit(f"protoc cannot read {path}")


class BuildWithContract(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            generate(pathlib.Path(self.build_lib) / "distorchd")
        else:
            generate(HERE / "src" / "distorchd")


class SourceWithContract(sdist):
    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        shutil.copy(contract(), base_dir)


setuptools.setup(cmdclass={"build_py": BuildWithContract, "sdist": SourceWithContract})
