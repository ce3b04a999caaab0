"""TLS from file paths. Files that change are picked up by the clients (see _client.py)."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import ssl
from typing import Optional, Union

import grpc

Path = Union[str, "os.PathLike[str]"]


@dataclasses.dataclass(frozen=True)
class Tls:
    """How to trust the gateway, and who we are. The gateway asks for a client certificate.

    ca_file: the authority of the gateway's certificate; None: the one built into gRPC.
    cert_file, key_file: our certificate (with its chain) and key, PEM.
    server_name: the name in the gateway's certificate, where it is not the host of the target.
    """

    ca_file: Optional[Path] = None
    cert_file: Optional[Path] = None
    key_file: Optional[Path] = None
    server_name: Optional[str] = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")

    def _paths(self) -> list[Path]:
        return [path for path in (self.ca_file, self.cert_file, self.key_file) if path is not None]

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Another value when a file was replaced or rewritten. OSError when one is missing."""
        stats = [os.stat(path) for path in self._paths()]
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)

    def credentials(self) -> grpc.ChannelCredentials:
        """OSError or ssl.SSLError when the files cannot be used, for example a key that is not the certificate's."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca_file is not None:
            context.load_verify_locations(self.ca_file)
        if self.cert_file is not None and self.key_file is not None:
            # An encrypted key fails here instead of asking at the terminal.
            context.load_cert_chain(self.cert_file, self.key_file, password=lambda: b"")
        read = [None if path is None else pathlib.Path(path).read_bytes()
                for path in (self.ca_file, self.key_file, self.cert_file)]
        return grpc.ssl_channel_credentials(*read)
