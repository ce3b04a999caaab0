"""docs/grpcurl.md is what it says: each of its commands is run, and its output compared."""

import dataclasses
import os
import re
import subprocess

import pytest

from harness.grpcurl import find
from harness.process import PATIENCE
from harness.protos import REPO
from harness.sandbox import Sandbox

PAGE = REPO / "docs" / "grpcurl.md"


@dataclasses.dataclass
class Command:
    text: str
    output: str


def commands():
    """The commands of the page's console blocks. A here-document belongs to its command."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(), re.M | re.S):
        until = None
        for line in block.splitlines(keepends=True):
            if until:
                found[-1].text += line
                until = None if line.strip() == until else until
            elif line.startswith("$ "):
                found.append(Command(line[2:], ""))
                here = re.search(r"<<'(\w+)'", line)
                until = here.group(1) if here else None
            else:
                assert found, f"output before the first command: {line!r}"
                found[-1].output += line
    return found


def trimmed(text):
    """grpcurl indents with tabs and spaces by turns; the page is written to be read."""
    return "".join(re.sub(r"^\s+|(?<=\))\s+", "", line) + "\n" for line in text.splitlines())


def pattern(output):
    """`<...>` on a line of its own is any number of lines, `<word>` is something within a line."""
    lines = []
    for line in trimmed(output).splitlines():
        if line == "<...>":
            lines.append(r"(?:[^\n]*\n)*?")
        else:
            pieces = re.split(r"<[a-z]+>", line)
            lines.append("[^\\n]+?".join(map(re.escape, pieces)) + "\n")
    return re.compile("".join(lines))


def test_the_page_has_commands():
    texts = [command.text for command in commands()]
    assert len(texts) > 12
    for needed in (" list", " describe", "CreateUserIntent", "GetCreation", "Health/Check", "-cacert", "2>&1"):
        assert any(needed in text for text in texts), needed


def test_the_comparison_can_fail():
    shape = pattern('{\n  "id": "<id>",\n<...>\n}\n')
    assert shape.fullmatch(trimmed('{\n  "id": "abc",\n}\n'))
    assert shape.fullmatch(trimmed('{\n  "id": "abc",\n  "x": 1\n}\n'))
    assert not shape.fullmatch(trimmed('{\n  "id": "",\n}\n'))
    assert not shape.fullmatch(trimmed('{\n  "other": "abc",\n}\n'))
    assert not shape.fullmatch(trimmed('{\n  "id": "abc",\n'))


def test_every_command_of_the_page(new_gateway, authority, tmp_path):
    grpcurl = find()
    if grpcurl is None:
        pytest.fail("grpcurl is missing: set GRPCURL, or install it into build/tools/bin")
    key, certificate = authority.issue("page-server", ["DNS:localhost"])
    client_key, client_certificate = authority.issue("page-client", ["URI:spiffe://example.test/page"])
    (tmp_path / "ca.crt").write_bytes(authority.ca_file.read_bytes())
    (tmp_path / "client.key").write_bytes(client_key.read_bytes())
    (tmp_path / "client.crt").write_bytes(client_certificate.read_bytes())
    own = Sandbox()  # its account is the page's alone
    try:
        plain = new_gateway(own)
        secured = new_gateway(own, tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=authority.ca_file,
                              reflection=True)
        secured_port = secured.address.rpartition(":")[2]

        def local(text):
            return text.replace("127.0.0.1:50051", plain.address).replace(":50052", f":{secured_port}")

        environment = {**os.environ, "PATH": f"{os.path.dirname(os.path.abspath(grpcurl))}:{os.environ['PATH']}"}
        wrong = []
        for command in commands():
            ended = subprocess.run(["bash", "-c", local(command.text)], cwd=tmp_path, env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE + 40)
            expected = pattern(local(command.output))
            if not expected.fullmatch(trimmed(ended.stdout)):
                wrong.append(f"$ {command.text}gave:\n{ended.stdout}\nwhich is not:\n{command.output}")
        assert not wrong, "\n\n".join(wrong)
        assert own.summary()["posts"] == 1
    finally:
        own.stop()
