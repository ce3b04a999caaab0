"""Build hook: makes userintent/v1 (messages, type stubs, gRPC stubs) of the .proto files with grpcio-tools."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def generate(root: pathlib.Path, out: pathlib.Path) -> None:
    # In a checkout the .proto files are two levels up, in a source distribution beside this file.
    protos = next(path for path in (root / "proto", root.parents[1] / "proto") if path.is_dir())
    import google.rpc

    include = next(p for p in map(pathlib.Path, google.rpc.__path__) if (p / "error_details.proto").exists()).parents[1]
    sources = sorted(str(path.relative_to(protos)) for path in protos.rglob("*.proto"))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"-I{include}", f"--python_out={made}",
             f"--pyi_out={made}", f"--grpc_python_out={made}", *sources],
            check=True)
        for path in pathlib.Path(made, "userintent", "v1").iterdir():
            if path.name.endswith("_pb2_grpc.py") and "_service_" not in path.name:
                continue  # no service in that file
            (out / path.name).write_text(_portable(path.read_text()))
    (out / "__init__.py").write_text('"""Generated from proto/userintent/v1. Do not edit."""\n')


def _portable(text: str) -> str:
    """Without the checks that newer generators add.

    They refuse an older runtime, and one that is two majors newer. What this package allows is tested with its oldest
    and its newest runtime instead.
    """
    text = re.sub(r"^from google\.protobuf import runtime_version as _runtime_version\n", "", text, flags=re.M)
    text = re.sub(r"^_runtime_version\.ValidateProtobufRuntimeVersion\(\n(?:.*\n)*?\)\n", "", text, flags=re.M)
    text = re.sub(r"^GRPC_GENERATED_VERSION = (?:.*\n)*?^if _version_not_supported:\n(?:[ \t].*\n)+", "", text, flags=re.M)
    text = re.sub(r"^import warnings\n", "", text, flags=re.M)
    return text.replace(",\n                _registered_method=True)", ")")


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version, build_data):
        if self.target_name == "wheel":
            root = pathlib.Path(self.root)
            generate(root, root / "src" / "userintent" / "v1")
            build_data["pure_python"] = True


if __name__ == "__main__":  # the stubs alone, for work on the checkout
    here = pathlib.Path(os.path.abspath(__file__)).parent
    generate(here, pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here / "src" / "userintent" / "v1")
