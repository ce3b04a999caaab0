"""Python stubs of proto/, made by grpcio-tools under build/ when the tests start and kept until a .proto changes.
`python -m support.protos` makes them ahead (Dockerfile)."""

import hashlib
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import google.rpc

from support.process import REPO

BUILD = pathlib.Path(os.environ.get("E2E_BUILD_DIR", REPO / "build" / "e2e"))


def _google_include() -> pathlib.Path:
    for entry in google.rpc.__path__:
        if (pathlib.Path(entry) / "error_details.proto").exists():
            return pathlib.Path(entry).parents[1]
    raise RuntimeError("googleapis-common-protos is installed without its .proto files")


def generate() -> pathlib.Path:
    sources = sorted((REPO / "proto").rglob("*.proto"))
    digest = hashlib.sha256(importlib.metadata.version("grpcio-tools").encode())
    for source in sources:
        digest.update(source.read_bytes())
    out = BUILD / f"python-{digest.hexdigest()[:16]}"
    if out.exists():
        return out
    BUILD.mkdir(parents=True, exist_ok=True)
    made = pathlib.Path(tempfile.mkdtemp(dir=BUILD))
    made.chmod(0o755)  # another user may run the tests (Dockerfile)
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{REPO / 'proto'}", f"-I{_google_include()}",
         f"--python_out={made}", f"--grpc_python_out={made}"]
        + [str(source.relative_to(REPO / "proto")) for source in sources],
        check=True, cwd=REPO / "proto")
    try:
        made.rename(out)  # atomic, so that two test runs at once do not read half a tree
    except OSError:
        shutil.rmtree(made, ignore_errors=True)
    return out


sys.path.insert(0, str(generate()))

from userintent.v1 import errors_pb2, options_pb2  # noqa: E402
from userintent.v1 import user_intent_service_pb2 as pb  # noqa: E402
from userintent.v1 import user_intent_service_pb2_grpc as pb_grpc  # noqa: E402

SERVICE = "userintent.v1.UserIntentService"
CREATE = f"/{SERVICE}/CreateUserIntent"
GET = f"/{SERVICE}/GetCreation"
READ = f"/{SERVICE}/GetUserIntent"

__all__ = ["CREATE", "GET", "READ", "REPO", "BUILD", "SERVICE", "errors_pb2", "options_pb2", "pb", "pb_grpc"]
