"""Finds grpcurl: GRPCURL, build/tools/bin, PATH."""

import os
import shutil

from support.protos import REPO


def find():
    for candidate in (os.environ.get("GRPCURL"), str(REPO / "build" / "tools" / "bin" / "grpcurl"), "grpcurl"):
        found = candidate and shutil.which(candidate)
        if found:
            return found
    return None
