"""Certificates for the tests, by the openssl command."""

import datetime
import pathlib
import subprocess
import tempfile
import time

_EC = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


class Authority:
    """A CA in a directory, its own or the one that is named; issue() makes a key and a certificate and returns both
    paths. A root, or by between() one that another signed."""

    def __init__(self, name="e2e CA", directory=None):
        self._directory = tempfile.TemporaryDirectory(prefix="e2e-ca-") if directory is None else None
        self.directory = pathlib.Path(directory or self._directory.name)
        self.ca_file = self.directory / "ca.crt"
        self.ca_key = self.directory / "ca.key"
        self._make(name)

    @classmethod
    def of(cls, key, certificate):
        """One that nobody made an authority, in the directory of its files."""
        self = object.__new__(cls)
        self._directory, self.directory, self.ca_key, self.ca_file = None, certificate.parent, key, certificate
        return self

    def _make(self, name):
        self._openssl("req", "-x509", *_new_key(), "-keyout", self.ca_key, "-out", self.ca_file, "-days", "2",
                      "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE",
                      "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    def between(self, name, more=()):
        """An authority that this one vouches for, in a directory below this one's. `more`: lines of extensions."""
        return Intermediate(self, name, more)

    def issue(self, name, sans=(), usage="serverAuth,clientAuth", days=2, start=None, end=None, key=None, digest="sha256",
              extensions=(), subject=None):
        """`start` and `end`: datetimes in UTC, for one that lives for seconds or not yet. `usage` None: without it.
        `key`: another kind, as `openssl req -newkey` calls it. `extensions`: lines beside, or in place of, those made
        here (one of the same name)."""
        stem = self.directory / name
        request, settings = stem.with_suffix(".csr"), stem.with_suffix(".ext")
        lines = {"basicConstraints": "CA:FALSE"}
        if usage:
            lines["extendedKeyUsage"] = usage
        if sans:
            lines["subjectAltName"] = ",".join(sans)
        lines.update(line.split("=", 1) for line in extensions)
        settings.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        key_file, certificate = stem.with_suffix(".key"), stem.with_suffix(".crt")
        self._openssl("req", *_new_key(key), "-keyout", key_file, "-out", request, "-subj", subject or f"/CN={name}")
        if start is not None or end is not None:
            self._sign_between(request, settings, certificate, digest, start, end)
        else:
            self._openssl("x509", "-req", "-in", request, "-CA", self.ca_file, "-CAkey", self.ca_key, "-CAcreateserial",
                          f"-{digest}", "-days", days, "-extfile", settings, "-out", certificate)
        key_file.chmod(0o600)
        return key_file, certificate

    def _database(self):
        settings, index = self.directory / "ca.conf", self.directory / "index.txt"
        settings.write_text(f"[ca]\ndefault_ca=it\n[it]\ndatabase={index}\nnew_certs_dir={self.directory}\n"
                            "rand_serial=yes\ndefault_md=sha256\nunique_subject=no\npolicy=any\n"
                            "[any]\ncommonName=supplied\n")
        index.touch()
        return ("ca", "-batch", "-config", settings, "-cert", self.ca_file, "-keyfile", self.ca_key)

    def _sign_between(self, request, extensions, certificate, digest, start, end):
        times = [part for word, moment in (("-startdate", start), ("-enddate", end)) if moment is not None
                 for part in (word, _text(moment))]
        self._openssl(*self._database(), "-in", request, "-extfile", extensions, "-notext", "-md", digest,
                      *times, *([] if end is not None else ["-days", "2"]), "-out", certificate)

    def revoke(self, certificate):
        """From the next revoked() on."""
        self._openssl(*self._database(), "-revoke", certificate)

    def revoked(self, name="ca.crl", seconds=86400):
        """A list of what was revoked, as a file, which ends in so many seconds."""
        crl = self.directory / name
        self._openssl(*self._database(), "-gencrl", "-crlsec", seconds, "-out", crl)
        return crl

    @staticmethod
    def end_of(crl):
        """When the list must have been renewed, in seconds since 1970."""
        return _told_time("crl", "-in", crl, "-nextupdate")

    @staticmethod
    def not_after(certificate):
        """When the first certificate of a file ends, in seconds since 1970."""
        return _told_time("x509", "-in", certificate, "-enddate")

    def has_ended(self, crl):
        return time.time() > self.end_of(crl) + 1

    def close(self):
        if self._directory is not None:
            self._directory.cleanup()


def _told_time(command, *arguments):
    text = subprocess.run(["openssl", command, *arguments, "-noout"], check=True, capture_output=True, text=True).stdout
    end = datetime.datetime.strptime(text.strip().split("=", 1)[1], "%b %d %H:%M:%S %Y GMT")
    return end.replace(tzinfo=datetime.timezone.utc).timestamp()


class Intermediate(Authority):
    def __init__(self, parent, name, more):
        self._parent, self._more = parent, more
        directory = parent.directory / name.replace(" ", "-")
        directory.mkdir()
        super().__init__(name, directory)

    def _make(self, name):
        key, certificate = self._parent.issue(
            f"{self.directory.name}-ca", usage=None, subject=f"/CN={name}",
            extensions=["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign", *self._more])
        key.rename(self.ca_key)
        certificate.rename(self.ca_file)


def _text(moment):
    return moment.strftime("%Y%m%d%H%M%SZ")


def _new_key(kind=None):
    return ("-newkey", *(_EC if kind is None else (kind,)), "-nodes")
