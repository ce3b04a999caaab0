"""Certificates for the tests, by the openssl command."""

import pathlib
import subprocess
import tempfile


class Authority:
    """A CA in a directory, its own or the one that is named; issue() makes a key and a certificate and returns both
    paths."""

    def __init__(self, name="e2e CA", directory=None):
        self._directory = tempfile.TemporaryDirectory(prefix="e2e-ca-") if directory is None else None
        self.directory = pathlib.Path(directory or self._directory.name)
        self.ca_file = self.directory / "ca.crt"
        self._key = self.directory / "ca.key"
        self._openssl("req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.ca_file, "-days", "2",
                      "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE",
                      "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def _openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    def issue(self, name, sans=(), usage="serverAuth,clientAuth", days=2, end=None):
        """`end`: when the certificate ends, as a datetime in UTC, for one that lives for seconds."""
        stem = self.directory / name
        request, extensions = stem.with_suffix(".csr"), stem.with_suffix(".ext")
        lines = ["basicConstraints=CA:FALSE", f"extendedKeyUsage={usage}"]
        if sans:
            lines.append("subjectAltName=" + ",".join(sans))
        extensions.write_text("\n".join(lines) + "\n")
        key, certificate = stem.with_suffix(".key"), stem.with_suffix(".crt")
        self._openssl("req", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        if end is not None:
            self._sign_until(request, extensions, certificate, end)
        else:
            self._openssl("x509", "-req", "-in", request, "-CA", self.ca_file, "-CAkey", self._key, "-CAcreateserial",
                          "-days", str(days), "-extfile", extensions, "-out", certificate)
        key.chmod(0o600)
        return key, certificate

    def _sign_until(self, request, extensions, certificate, end):
        settings, index = self.directory / "ca.conf", self.directory / "index.txt"
        settings.write_text(f"[ca]\ndefault_ca=it\n[it]\ndatabase={index}\nnew_certs_dir={self.directory}\n"
                            "rand_serial=yes\ndefault_md=sha256\nunique_subject=no\npolicy=any\n"
                            "[any]\ncommonName=supplied\n")
        index.touch()
        self._openssl("ca", "-batch", "-config", settings, "-cert", self.ca_file, "-keyfile", self._key, "-in", request,
                      "-extfile", extensions, "-notext", "-enddate", end.strftime("%Y%m%d%H%M%SZ"), "-out", certificate)

    def close(self):
        if self._directory is not None:
            self._directory.cleanup()


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
