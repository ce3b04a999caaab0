"""Files that a gateway watches, changed as operators change them; and who it shows itself as."""

import contextlib
import os
import pathlib
import socket
import ssl

from support.wire import split


class Files:
    """A directory with files of fixed names. put() replaces one of them; swap() all of them at once, as Kubernetes does
    for a mounted secret: the names lead through a symbolic link to a directory, and the link is swapped."""

    def __init__(self, directory, **contents):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir()
        self._generation = 0
        self._contents = {}
        self.swap(**contents)

    def path(self, name):
        return self.directory / name.replace("_", ".")

    def swap(self, **contents):
        self._contents.update(contents)
        self._generation += 1
        fresh = self.directory / f"..{self._generation}"
        fresh.mkdir()
        for name, content in self._contents.items():
            self._write(fresh / self.path(name).name, content)
        link = self.directory / "..fresh"
        link.symlink_to(fresh.name)
        link.rename(self.directory / "..data")
        for name in self._contents:
            path = self.path(name)
            if not path.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                path.symlink_to(f"..data/{path.name}")

    def put(self, name, content):
        """One file, renamed over the old one."""
        self._contents[name] = content
        path = self.path(name)
        fresh = path.with_name(f"{path.name}.fresh")
        self._write(fresh, content)
        fresh.rename(path)

    def _write(self, path, content):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)


def shown(address, client=None):
    """The certificate (DER) that the server shows in a handshake, whose peer believes anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if client is not None:
        key, chain = client
        context.load_cert_chain(chain, key)
    with socket.create_connection(split(address), 10) as raw, context.wrap_socket(raw) as tls:
        return tls.getpeercert(binary_form=True)


def der(certificate):
    """Of the first certificate of a PEM file."""
    return ssl.PEM_cert_to_DER_cert(first(pathlib.Path(certificate).read_text()))


def first(pem):
    end = "-----END CERTIFICATE-----"
    return pem[pem.index("-----BEGIN CERTIFICATE"):pem.index(end) + len(end)] + "\n"
