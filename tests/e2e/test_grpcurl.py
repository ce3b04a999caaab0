"""docs/grpcurl.md is what it says: each of its commands is run, and its output compared."""

import dataclasses
import os
import re
import subprocess

import pytest

from support.grpcurl import find
from support.process import PATIENCE
from support.protos import REPO
from support.sandbox import Sandbox

PAGE = REPO / "docs" / "grpcurl.md"


@dataclasses.dataclass
class Command:
    text: str
    output: str


def commands(page=PAGE):
    """The commands of the page's console blocks. A here-document belongs to its command."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", page.read_text(), re.M | re.S):
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
    """The page shows a command for each thing that a reader wants to do."""
    texts = [command.text for command in commands()]
    assert len(texts) > 12
    for needed in (" list", " describe", "CreateUserIntent", "GetCreation", "GetUserIntent", "GetAuthorizationUrl", "Health/Check", "-cacert", "2>&1"):
        assert any(needed in text for text in texts), needed


def test_the_comparison_can_fail():
    shape = pattern('{\n  "id": "<id>",\n<...>\n}\n')
    assert shape.fullmatch(trimmed('{\n  "id": "abc",\n}\n'))
    assert shape.fullmatch(trimmed('{\n  "id": "abc",\n  "x": 1\n}\n'))
    assert not shape.fullmatch(trimmed('{\n  "id": "",\n}\n'))
    assert not shape.fullmatch(trimmed('{\n  "other": "abc",\n}\n'))
    assert not shape.fullmatch(trimmed('{\n  "id": "abc",\n'))


def test_readme_names_grpcurl_where_it_is(new_gateway, sandbox):
    """README's call as printed, but for the port: from the root of the checkout, with nothing on the PATH."""
    (line,) = re.findall(r"^    (build/tools/bin/grpcurl -plaintext -d .*?CreateUserIntent)$", (REPO / "README.md").read_text(), re.M | re.S)
    own = new_gateway(sandbox)
    ended = subprocess.run(["bash", "-c", line.replace("127.0.0.1:50051", own.address)], cwd=REPO, env={"PATH": "/usr/bin:/bin"}, text=True,
                           capture_output=True, timeout=PATIENCE + 40)
    assert ended.returncode == 0, ended.stderr
    assert '"status": "USER_INTENT_STATUS_PENDING"' in ended.stdout


def test_the_files_of_the_mtls_commands_are_made_by_a_line_of_the_page():
    text = PAGE.read_text()
    used = set(re.findall(r"(?<= )build/keys/[\w.]+", text))
    assert len(used) == 3
    (made,) = re.findall(r"^    mkdir -p build/keys && docker compose run --rm -T keys \| tar -x -C build/keys$", text, re.M)
    service = (REPO / "docker-compose.yml").read_text().partition("\n  keys:")[2].partition("\n\n")[0]
    assert made and all(f'"{path.rpartition("/")[2]}"' in service for path in used)


def test_every_command_of_the_page(new_gateway, authority, tmp_path):
    """Each command does what the page prints below it."""
    grpcurl = find()
    if grpcurl is None:
        pytest.fail("grpcurl is missing: set GRPCURL, or install it into build/tools/bin")
    key, certificate = authority.issue("page-server", ["DNS:localhost"])
    client_key, client_certificate = authority.issue("page-client", ["URI:spiffe://example.test/page"])
    keys = tmp_path / "build" / "keys"
    keys.mkdir(parents=True)
    for name, file in (("ca.crt", authority.ca_file), ("client.key", client_key), ("client.crt", client_certificate)):
        (keys / name).write_bytes(file.read_bytes())
    own = Sandbox()  # its account is the page's alone
    try:
        plain = new_gateway(own, oauth_redirect_uri="http://localhost:8000/astra/done")  # as the page says of `make run`
        secured = new_gateway(own, tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=authority.ca_file,
                              reflection=True)
        secured_port = secured.address.rpartition(":")[2]

        def local(text):
            return text.replace("127.0.0.1:50051", plain.address).replace("localhost:50051", f"localhost:{secured_port}")

        environment = {**os.environ, "PATH": f"{os.path.dirname(os.path.abspath(grpcurl))}:{os.environ['PATH']}"}
        wrong = []
        for command in commands():
            ended = subprocess.run(["bash", "-c", local(command.text)], cwd=tmp_path, env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE + 40)
            expected = pattern(local(command.output))
            if not expected.fullmatch(trimmed(ended.stdout)):
                wrong.append(f"$ {command.text}gave:\n{ended.stdout}\nwhich is not:\n{command.output}")
        assert not wrong, "\n\n".join(wrong)
        counted = own.summary()
        # The read with max_age is answered from the record; while the intent is watched, the gateway reads it by itself.
        assert counted["posts"] == 1 and counted["gets"] >= 3
    finally:
        own.stop()
