"""The bill of materials and what is made of it: how docker/sbom.py writes it, how the image is held to it
(tests/compose/image_content.py), and what `make audit` says of it. The image itself is looked at by make compose-test.
"""

import hashlib
import http.server
import importlib.util
import json
import threading

import pytest

from support.protos import REPO


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sbom = load(REPO / "docker" / "sbom.py")
content = load(REPO / "tests" / "compose" / "image_content.py")
audit = load(REPO / "scripts" / "audit.py")

# An image of invented bytes: path, content, package, version, source.
ELF = b"\x7fELF"
SOURCES = sorted(content.REQUIRED_SOURCES)
PARTS = [("/usr/local/bin/userintent-server", ELF + b"server", "-", "", "")] + [
    (f"/usr/lib/lib{source}{number}.so", ELF + f"{source}{number}".encode(), f"lib{source}{number}", "1:1.83.0-2+b1", source)
    for source in SOURCES for number in (1, 2)]


def listing(parts=PARTS):
    lines = []
    for path, data, package, version, source in parts:
        sha = hashlib.sha256(data).hexdigest()
        rest = ["-", "", "", "", ""] if package == "-" else [package, version, "amd64", source, "1:1.83.0-2"]
        lines.append("\t".join([path, sha, *rest]))
    return "\n".join(lines) + "\n"


BUILD = "nlohmann-json3-dev\t3.11.3-2\tall\tnlohmann-json3\t3.11.3-2\n"


@pytest.fixture
def bill():
    return sbom.bill(listing(), BUILD, "0.1.0")


def image(bill, parts=PARTS):
    for path, data, *_ in parts:
        yield path.removeprefix("/"), 0o755, data
    yield content.SBOM, 0o644, json.dumps(bill).encode()


def test_it_has_what_the_format_asks_for(bill):
    assert not list(content.problems_of_form(bill))
    assert bill["metadata"]["component"]["purl"] == "pkg:generic/userintent-gateway@0.1.0"
    one = next(c for c in bill["components"] if c["name"] == "libgrpc1")
    assert one["purl"] == "pkg:deb/debian/libgrpc1@1%3A1.83.0-2%2Bb1?arch=amd64&distro=debian-13"
    assert one["components"][0]["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(ELF + b"grpc1").hexdigest()}]
    assert [c["name"] for c in bill["components"] if c["properties"][2]["value"] == "compiled into the programs"] == \
        ["nlohmann-json3-dev"]


def test_the_same_image_gives_the_same_bill(bill):
    assert sbom.bill(listing(), BUILD, "0.1.0") == bill
    assert sbom.bill(listing(), BUILD, "0.1.1")["serialNumber"] != bill["serialNumber"]
    assert sbom.bill(listing(), BUILD, "0.1.0", made=0)["metadata"]["timestamp"] == "1970-01-01T00:00:00Z"


@pytest.mark.parametrize("field", ["bomFormat", "specVersion", "version", "serialNumber", "metadata"])
def test_a_bill_without_a_field_is_noticed(bill, field):
    del bill[field]
    assert list(content.problems_of_form(bill))


@pytest.mark.parametrize("field", ["type", "name", "version", "purl", "bom-ref"])
def test_a_component_without_a_field_is_noticed(bill, field):
    del bill["components"][0][field]
    assert list(content.problems_of_form(bill))


def test_an_image_that_is_as_listed(bill):
    assert not list(content.problems(image(bill)))


@pytest.mark.parametrize("more, problem", [
    (("/bin/sh", ELF), "bin/sh is in the image"), (("/usr/bin/python3.13", ELF), "usr/bin/python3.13 is in the image"),
    (("/usr/lib/libmore.so", ELF), "usr/lib/libmore.so is not listed")])
def test_what_does_not_belong_there_is_noticed(bill, more, problem):
    assert problem in list(content.problems(image(bill, [*PARTS, more])))


def test_what_is_missing_or_another_is_noticed(bill):
    path = PARTS[1][0].removeprefix("/")
    assert f"{path} is listed, and is not there" in list(content.problems(image(bill, PARTS[:1] + PARTS[2:])))
    changed = [PARTS[0], (PARTS[1][0], ELF + b"else"), *PARTS[2:]]
    assert f"{path} is listed, and is another" in list(content.problems(image(bill, changed)))
    assert list(content.problems(iter([]))) == [f"no {content.SBOM}"]
    assert "usr/bin/x changes the user" in list(content.problems(iter([("usr/bin/x", 0o4755, b"")])))


# -- make audit ------------------------------------------------------------------------------------------------------------

def policy(**versions):
    return "".join(f"{name}:\n  Installed: (none)\n  Candidate: {version}\n  Version table:\n     {version} 500\n"
                   for name, version in versions.items())


def offers(bill, **other):
    return policy(**({name: version for name, version, *_ in audit.packages(bill)} | other))


def test_newer_versions_are_told(bill):
    assert audit.newer(bill, offers(bill)) == []
    assert audit.newer(bill, offers(bill, libcurl1="1:1.83.0-3")) == [("libcurl1", "1:1.83.0-2+b1", "1:1.83.0-3")]
    with pytest.raises(audit.NotReached):
        audit.newer(bill, policy(libcurl1="1"))


def test_versions_of_projects():
    for debian, own in (("1.83.0-2", "1.83.0"), ("20260526.0-2", "20260526.0"), ("1:2.3+dfsg-1", "2.3"), ("7", "7")):
        assert audit.upstream_version(debian) == own


@pytest.fixture
def osv():
    """A stand-in that answers as OSV's description says: one result for each question, in order."""
    class Handler(http.server.BaseHTTPRequestHandler):
        faults, questions = {}, []

        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            self.questions.append((self.path, asked))
            body = json.dumps({"results": [
                {"vulns": [{"id": fault} for fault in self.faults[question["package"]["name"]]]}
                if question["package"]["name"] in self.faults else {} for question in asked]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Handler.url = f"http://127.0.0.1:{server.server_port}"
    yield Handler
    server.shutdown()


def test_known_faults_are_told(bill, osv):
    assert audit.osv_faults(bill, osv.url) == []
    ((path, asked),) = osv.questions
    assert path == "/v1/querybatch"
    assert {"package": {"ecosystem": "GIT", "name": "https://github.com/grpc/grpc"}, "version": "v1.83.0"} in asked
    assert {"package": {"ecosystem": "Debian:13", "name": "openssl"}, "version": "1:1.83.0-2"} in asked
    osv.faults["openssl"] = ["DEBIAN-CVE-2000-0001"]
    osv.faults["https://github.com/grpc/grpc"] = ["CVE-2000-0002"]
    assert audit.osv_faults(bill, osv.url) == [("grpc", "CVE-2000-0002"), ("openssl", "DEBIAN-CVE-2000-0001")]


@pytest.mark.parametrize("archive, source, status", [
    ("same", "up", 0), ("newer", "up", 1), ("same", "faults", 1), ("same", "down", 2), ("down", "up", 2),
    ("newer", "down", 1), ("down", "down", 2)])
def test_the_exit_status_and_what_was_not_checked(bill, osv, tmp_path, monkeypatch, capsys, archive, source, status):
    def ask(_):
        if archive == "down":
            raise audit.NotReached("no network")
        return offers(bill, **({"libcurl1": "9"} if archive == "newer" else {}))
    if source == "faults":
        osv.faults["curl"] = ["DEBIAN-CVE-2000-0003"]
    path = tmp_path / "bill.json"
    path.write_text(json.dumps(bill))
    monkeypatch.setattr(audit, "ask_archive", ask)
    monkeypatch.setenv("OSV_URL", "http://127.0.0.1:1" if source == "down" else osv.url)
    monkeypatch.setattr("sys.argv", ["audit.py", str(path)])
    assert audit.main() == status
    said = capsys.readouterr().out
    assert ("Debian's archive: offline: not checked" in said) == (archive == "down")
    assert ("OSV: offline: not checked" in said) == (source == "down")


def test_without_a_bill_it_says_what_to_do(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["audit.py", str(tmp_path / "none.json")])
    assert audit.main() == 3
    assert "make sbom" in capsys.readouterr().err
