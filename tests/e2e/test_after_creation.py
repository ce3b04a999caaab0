"""docs/after-creation.md is what it says: each of its commands is run in order, and its output compared."""

import os
import re
import shutil
import subprocess

from test_grpcurl import commands, pattern, trimmed

from support.grpcurl import find
from support.process import PATIENCE
from support.protos import REPO, pb
from support.sandbox import Sandbox

PAGE = REPO / "docs" / "after-creation.md"


def test_every_command_of_the_page(new_gateway, tmp_path):
    grpcurl = find()
    assert grpcurl is not None, "grpcurl is missing: set GRPCURL, or install it into build/tools/bin"
    assert shutil.which("curl"), "curl is missing"
    found = commands(PAGE)
    assert len(found) > 15
    own = Sandbox()  # its account is the page's alone
    try:
        gateway = new_gateway(own, oauth_redirect_uri="http://localhost:8000/astra/done")  # as `make run` has it

        def local(text):
            return text.replace("127.0.0.1:50051", gateway.address).replace("127.0.0.1:8444", own.admin.netloc)

        environment = {**os.environ, "PATH": f"{os.path.dirname(os.path.abspath(grpcurl))}:{os.environ['PATH']}"}
        wrong = []
        for command in found:
            ended = subprocess.run(["bash", "-c", local(command.text)], cwd=tmp_path, env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE + 40)
            if not pattern(command.output).fullmatch(trimmed(ended.stdout)):
                wrong.append(f"$ {command.text}gave:\n{ended.stdout}\nwhich is not:\n{command.output}")
        assert not wrong, "\n\n".join(wrong)
        assert own.summary()["posts"] == 2 and own.summary()["duplicate_attempt_ids"] == 0
    finally:
        own.stop()


def table(heading):
    """The first column of the table below this heading."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [row.split("|")[1].strip() for row in section.splitlines() if row.startswith("| ")][1:]


def test_the_tables_name_every_status_and_every_recovery():
    statuses = {word for row in table("Follow the status") for word in row.split(", ")}
    assert statuses == {name.removeprefix("USER_INTENT_STATUS_") for name in pb.UserIntentStatus.keys()}
    recoveries = set(re.findall(r"`recovery` (\w+)", "\n".join(table("What to do with each answer"))))
    assert recoveries == set(re.findall(r"^\| ([A-Z_]+) \|", (REPO / "docs" / "errors.md").read_text(), re.M)) & {
        "FIX_REQUEST", "FIX_WITH_NEW_ID", "RETRY_SAME_ID", "ASK_SAME_ID", "USE_EXISTING", "WAIT_FOR_OPERATOR", "STOP"}
    assert len(recoveries) == 7
