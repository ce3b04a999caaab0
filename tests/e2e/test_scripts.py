"""The scripts that people meet first: what they say when something is missing, and that one failing suite hides no other."""

import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest

from support.process import BIN_DIR, PATIENCE, wait_for
from support.protos import REPO

SCRIPTS = REPO / "scripts"


def shell(command, cwd=REPO, **environment):
    return subprocess.run(["bash", "-c", command], cwd=cwd, env={**os.environ, "NO_COLOR": "1", **environment}, text=True,
                          capture_output=True, timeout=PATIENCE + 100)


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path):
    """The scripts in a directory of their own, so that nothing of this build is touched."""
    root = tmp_path / "checkout"
    for name in ("scripts", "run", "test", "Makefile", "tests/tools"):
        source = REPO / name
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    return root


def errors(ended):
    return [line for line in ended.stderr.splitlines() if line.strip()]


# -- make test ------------------------------------------------------------------------------------------------------------

SUITES = ["cpp", "e2e", "crash", "histories", "torture", "client-python", "client-go", "client-java", "client-cpp",
          "client-cross"]
SHOWN = [name for name in SUITES if name != "torture"] + ["torture"]  # which comes after the clients, where they run, too


def suites(tmp_path, failing):
    for name in SUITES:
        program(tmp_path / "suites" / name, f"#!/bin/sh\necho ran {name}\nexit {int(name in failing)}\n")
    report = '<testsuite name="x"><testcase classname="test_a" name="test_b[1 x]"><failure/></testcase></testsuite>'
    program(tmp_path / "suites" / "e2e", f"""#!/bin/sh
echo ran e2e
echo '{report if "e2e" in failing else report.replace("<failure/>", "")}' >"$TEST_RESULTS/release/e2e.xml"
exit {int("e2e" in failing)}
""")
    return dict(TEST_SUITES_DIR=str(tmp_path / "suites"), TEST_RESULTS=str(tmp_path / "results"))


def test_one_failing_suite_keeps_no_other_from_running(tmp_path):
    ended = shell("scripts/test.sh", **suites(tmp_path, ["e2e", "client-go"]))
    assert ended.returncode == 1
    assert [line.removeprefix("ran ") for line in ended.stdout.splitlines() if line.startswith("ran ")] == SHOWN
    assert "0 passed, 1 failed" in ended.stdout
    end = ended.stdout.rpartition("What failed, and how to run that alone")[2].split("\n")
    assert [line.strip() for line in end if line] == [
        "build/tools/venv/bin/python -m pytest -p no:cacheprovider 'tests/e2e/test_a.py::test_b[1 x]'",
        "scripts/test.sh release e2e",
        "scripts/test.sh release client-go",
    ]


def test_nothing_failed_ends_with_the_counts(tmp_path):
    ended = shell("scripts/test.sh", **suites(tmp_path, []))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "1 passed, 0 failed"


def test_some_suites_only(tmp_path):
    """test.sh runs the suites that are named, in that order, and refuses a name that it does not know."""
    ended = shell("scripts/test.sh release client-go clients", **suites(tmp_path, []))
    assert ended.returncode == 0
    ran = [line.removeprefix("ran ") for line in ended.stdout.splitlines() if line.startswith("ran ")]
    assert ran == ["client-go", *SUITES[SUITES.index("client-python"):]]
    assert errors(shell("scripts/test.sh release nonsense", **suites(tmp_path, []))) == [
        "error: there is no suite nonsense; scripts/test.sh --list tells all"]


def meeting(tmp_path, name, does):
    """Puts a suite in place that says when it begins and ends in files, with lines of shell in between. `met NAME` waits
    for such a file, and ends the suite with 9 when it does not come."""
    return program(tmp_path / "suites" / name, f"""#!/bin/sh
met() {{ for _ in $(seq 600); do [ ! -e "{tmp_path}/$1" ] || return 0; sleep 0.1; done; exit 9; }}
touch "{tmp_path}/{name} begins"
{does}
touch "{tmp_path}/{name} ends"
""")


def test_clients_run_beside_the_gateway(tmp_path):
    """Each suite waits for what another one does at the same time; cpp has the machine for itself."""
    environment = suites(tmp_path, [])
    meeting(tmp_path, "cpp", f'[ ! -e "{tmp_path}/client-python begins" ] || exit 8')
    meeting(tmp_path, "client-python", f'[ -e "{tmp_path}/cpp ends" ] || exit 8; met "crash begins"')
    meeting(tmp_path, "crash", 'met "client-go begins"')
    meeting(tmp_path, "client-go", "sleep 0.5")
    ended = shell("scripts/test.sh", **environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    headings = [line.removeprefix("==> Suite ") for line in ended.stdout.splitlines() if line.startswith("==> Suite ")]
    assert headings == SHOWN


def test_one_after_the_other_on_request(tmp_path):
    environment = suites(tmp_path, [])
    for before, name in zip(SUITES[2:], SUITES[3:]):
        meeting(tmp_path, name, f'[ -e "{tmp_path}/{before} ends" ] || exit 8')
    meeting(tmp_path, "crash", "sleep 0.5")
    ended = shell("scripts/test.sh", TEST_AT_ONCE="no", **environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_suite_that_is_killed_has_failed(tmp_path):
    """Also beside others, and when its lane ends with it."""
    environment = suites(tmp_path, [])
    program(tmp_path / "suites" / "client-go", "#!/bin/sh\nkill -9 $$\n")
    program(tmp_path / "suites" / "client-java", "#!/bin/sh\nkill -9 $PPID\n")
    ended = shell("scripts/test.sh", **environment)
    assert ended.returncode == 1
    words = dict(line.split()[1::-1] for line in ended.stdout.splitlines() if re.match(r" +(ok|FAILED) ", line))
    assert [name for name in SUITES if words[name] == "FAILED"] == ["torture", "client-go", "client-java", "client-cpp", "client-cross"]


def test_all_suites_end_with_the_script(tmp_path):
    environment = suites(tmp_path, [])
    for name in ("e2e", "client-python"):
        meeting(tmp_path, name, f'echo $$ >"{tmp_path}/{name} pid"; sleep 600')
    running = subprocess.Popen(["scripts/test.sh"], cwd=REPO, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    pids = [tmp_path / f"{name} pid" for name in ("e2e", "client-python")]
    wait_for(lambda: all(path.exists() and path.read_text().strip() for path in pids), "both suites")
    running.terminate()
    assert running.wait(PATIENCE) == 143
    for path in pids:
        wait_for(lambda: not os.path.exists(f"/proc/{path.read_text().strip()}"), f"the end of {path.name}")


def test_the_commands_of_failed_tests_name_program_and_case(tmp_path):
    (tmp_path / "release" / "gtest").mkdir(parents=True)
    (tmp_path / "release" / "gtest" / "x_test.xml").write_text(
        '<testsuites><testsuite><testcase classname="A/Room" name="Says/0"><failure/></testcase></testsuite></testsuites>')
    (tmp_path / "release" / "ctest.xml").write_text(
        '<testsuite><testcase name="x_test" status="fail"><failure/></testcase>'
        '<testcase name="go_test" status="fail"><failure/></testcase></testsuite>')
    (tmp_path / "release" / "crash.xml").write_text(
        '<testsuite><testcase classname="tests.crash.test_crash.TestX" name="test_y"><error/></testcase></testsuite>')
    ended = shell(f"python3 scripts/count_tests.py --failed {tmp_path}/release")
    assert [line.strip() for line in ended.stdout.splitlines()] == [
        "build/release/bin/x_test --gtest_filter=A/Room.Says/0",
        "build/tools/venv/bin/python -m pytest -p no:cacheprovider tests/crash/test_crash.py::TestX::test_y",
        "ctest --preset release -R '^go_test$'",
    ]


# -- deps.sh, ./run -------------------------------------------------------------------------------------------------------

def fake_apt(tmp_path, says, status=100):
    """A machine on which one package is missing, and whose apt-get ends like this."""
    program(tmp_path / "bin" / "apt-get", f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    program(tmp_path / "bin" / "dpkg-query", "#!/bin/sh\necho installed bash\n")
    program(tmp_path / "bin" / "sudo", '#!/bin/sh\nexec "$@"\n')
    return f"{tmp_path / 'bin'}:{os.environ['PATH']}"


@pytest.mark.parametrize("says, reason", [
    ("Err:1 Temporary failure resolving", "no network, or the package registry does not answer"),
    ("E: You don't have enough free space in /var/cache/apt/archives/. not enough free space", "the disk is full: "),
    ("E: Could not get lock /var/lib/dpkg/lock-frontend", "another apt runs; wait for it and start again"),
    ("E: something else", "E: something else"),
], ids=["network", "disk", "lock", "other"])
def test_a_failing_apt_is_one_line(checkout, tmp_path, says, reason):
    ended = shell("scripts/deps.sh run", cwd=checkout, PATH=fake_apt(tmp_path, says.replace("'", "")))
    assert ended.returncode == 1
    (line,) = errors(ended)
    assert line.startswith(f"error: apt-get update failed: {reason.replace(chr(39), '')}"), line


def test_neither_root_nor_sudo_is_one_line(checkout, tmp_path):
    fake_apt(tmp_path, "")
    (tmp_path / "bin" / "sudo").unlink()
    program(tmp_path / "bin" / "id", "#!/bin/sh\necho 1000\n")
    # A PATH without the machine's own sudo.
    for name in pathlib.Path("/usr/bin").iterdir():
        if name.name not in ("sudo", "apt-get", "id", "dpkg-query"):
            (tmp_path / "bin" / name.name).symlink_to(name)
    ended = shell("scripts/deps.sh run", cwd=checkout, PATH=str(tmp_path / "bin"))
    assert ended.returncode == 1
    (line,) = errors(ended)
    assert line.startswith("error: not root and no sudo; as root run: apt-get install --no-install-recommends make g++ "), line


def test_a_first_call_needs_no_library_of_the_tests(checkout, tmp_path):
    path = fake_apt(tmp_path, "x")
    for what, needed in (("run", False), ("all", True)):
        ended = shell(f"scripts/deps.sh {what}", cwd=checkout, PATH=path)
        assert ("libgtest-dev" in ended.stdout) == needed, what
        assert "pytest" not in ended.stdout or needed


def test_a_long_step_says_that_it_lives():
    ended = shell(". scripts/common.sh; patiently 'a step' sh -c 'echo half way; sleep 3'", PATIENTLY_EVERY="1")
    assert ended.returncode == 0
    said = ended.stdout.splitlines()
    assert said and all(line.startswith("    a step: ") and line.endswith("half way") for line in said), ended.stdout


def test_make_is_brought_where_there_is_none(checkout, tmp_path):
    """A PATH without make; apt-get brings it, and it is called with the target."""
    here = tmp_path / "bin"
    here.mkdir()
    for name in ("bash", "sh", "dirname", "id", "mktemp", "sleep", "rm", "tail", "tr", "cut", "env", "cat", "chmod", "echo"):
        (here / name).symlink_to(f"/usr/bin/{name}")
    program(here / "sudo", '#!/bin/sh\nexec "$@"\n')
    program(here / "apt-get", f"""#!/bin/sh
[ "$1" = install ] || exit 0
printf '#!/bin/sh\\necho make "$@"\\n' >{here}/make
chmod +x {here}/make
""")
    for name in ("run", "test"):
        ended = shell(f"./{name} X=1", cwd=checkout, PATH=str(here))
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.splitlines()[-1] == f"make --no-print-directory -C {checkout} {name} X=1"
        assert ("installing make" in ended.stdout) == (name == "run")


def test_too_little_disk_is_said_before_the_build(checkout):
    ended = shell("scripts/build-run.sh", cwd=checkout, BUILD_NEEDS_MIB="999999999")
    assert ended.returncode == 1
    (line,) = errors(ended)
    assert line.startswith("error: the disk is full: ") and line.endswith("a build needs 999999999"), line


def test_a_build_of_another_user_is_one_line(checkout):
    (checkout / "build").write_text("nobody may make a directory here\n")
    ended = shell("scripts/deps.sh run", cwd=checkout)
    assert ended.returncode == 1
    (line,) = errors(ended)
    assert "cannot be written by" in line


# -- make run -------------------------------------------------------------------------------------------------------------

def test_a_taken_port_is_one_line_and_another_is_used():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = shell("scripts/run.sh", GATEWAY_PORT=str(port), RUN_ONCE="1", GATEWAY_BIN_DIR=str(BIN_DIR))
    assert ended.returncode == 0, ended.stderr
    assert len([line for line in ended.stdout.splitlines() if f"port {port} is taken, so the gateway gets" in line]) == 1
    assert '"status": "USER_INTENT_STATUS_PENDING"' in ended.stdout


def test_a_first_call_builds_server_tool_and_sandbox_alone(tmp_path):
    ended = shell("make --no-print-directory -n run")
    assert ended.stdout.split() == ["scripts/deps.sh", "run", "scripts/build-run.sh", "scripts/run.sh"]
    # Without the test libraries, which deps.sh run does not bring.
    configured = shell(f"cmake -S . -B {tmp_path} -G Ninja -DUSERINTENT_TESTS=OFF -DCMAKE_DISABLE_FIND_PACKAGE_GTest=ON")
    assert configured.returncode == 0, configured.stderr
    steps = shell(f"ninja -C {tmp_path} -t commands userintent-server userintent-ledger astra-sandbox").stdout
    assert "bin/astra-sandbox ." in steps and "bin/userintent-ledger" in steps
    assert not [line for line in steps.splitlines() if re.search(r"tests/(unit|bench|crash|fuzz)|bench-peer", line)]


def test_the_build_of_a_first_call_is_no_obstacle_to_the_tests(checkout):
    """`make build` after `make run` goes on in the same directory, with the tests switched on."""
    (checkout / "build" / "release").mkdir(parents=True)
    (checkout / "build" / "release" / "CMakeCache.txt").write_text("USERINTENT_TESTS:BOOL=OFF\n")
    (checkout / "build" / "release" / "build.ninja").write_text("")
    assert "USERINTENT_TESTS:BOOL=ON" in (said := shell("make -n build-release", cwd=checkout).stdout)
    assert "cmake --preset release -DUSERINTENT_TESTS=ON" in said


# -- house rules ----------------------------------------------------------------------------------------------------------

FITS, WIDE = "x" * 60 + " " + "x" * 59, "x" * 60 + " " + "x" * 60


@pytest.mark.parametrize("name, text, broken", [
    pytest.param("docs/a.md", FITS, [], id="at the limit"),
    pytest.param("docs/a.md", f"ok\n{WIDE}", [(2, "wide")], id="prose"),
    pytest.param("README.md", WIDE, [(1, "wide")], id="prose at the top"),
    pytest.param("docs/a.md", "x" * 121, [], id="word"),
    pytest.param("docs/a.md", f"| {WIDE}", [], id="row"),
    pytest.param("docs/a.md", f"```\n{WIDE}\n```\n{WIDE}", [(4, "wide")], id="code"),
    pytest.param("tests/a.py", WIDE, [], id="no page"),
])
def test_prose_fits_in_120_columns(name, text, broken):
    sys.path.insert(0, str(SCRIPTS))
    import check_text

    assert [(line, rule) for line, rule, _ in check_text.breaches(name, f"{text}\n".encode())] == broken


def test_a_file_that_a_text_names_exists():
    sys.path.insert(0, str(SCRIPTS))
    import check_text

    text = b"See server/base/text.h, `server/base/old.h`, docs/*.md and https://example.com/docs/page.md.\n"
    found = check_text.breaches("docs/a.md", text, {"server/base/text.h"})
    assert list(found) == [(1, "gone", "server/base/old.h does not exist")]


def test_inputs_of_fuzz_targets_are_any_bytes_but_small_and_invented():
    sys.path.insert(0, str(SCRIPTS))
    import check_text

    def found(data):
        return [(line, rule) for line, rule, _ in check_text.breaches("tests/fuzz/corpus/request/a", data)]

    assert found(b"\xff\t \nsam@example.com") == []
    assert found(b"x" * 4097) == [(0, "corpus")]
    assert found(b"\xff\nsam@corp." + b"test-bank.de") == [(2, "mail")]


PAGE = """## Rooms of the server
| room | what it does | includes |
|---|---|---|
| `base` | leaf | |
| `ledger` | rows | `base` |
| `intent` | rules | `base` `ledger` |
| `astra` | dialect | `base` |
| `app` | all | every room |

## Single headers
| `astra` | `intent/fields.h` | names |

## Libraries
| `sqlite3.h` | `ledger/sqlite_*` | SQL |
| `sqlite3.h` | `ledger/backup.cc` | copies |
"""
# What makes every arrow, exception and pattern of the page used.
FILES = {
    "base/text.h": "",
    "ledger/sqlite_store.cc": '#include <sqlite3.h>\n#include "server/base/text.h"\n',
    "ledger/backup.cc": "#include <sqlite3.h>\n",
    "intent/rules.cc": '#include "server/base/text.h"\n#include "server/ledger/ledger.h"\n',
    "astra/json.cc": '#include "server/base/text.h"\n#include "server/intent/fields.h"\n',
    "app/server.cc": '#include "server/astra/json.h"\n',
}


@pytest.fixture
def architecture():
    sys.path.insert(0, str(SCRIPTS))
    import check_architecture

    def breaches(page=PAGE, **files):
        """Rules that are broken, by a page and the files of server/; the names of `files` have __ for / and end in .cc."""
        server = check_architecture.Server(check_architecture.Page(page))
        changed = FILES | {name.replace("__", "/") + ".cc": text for name, text in files.items()}
        for name, text in changed.items():
            server.look(name, text)
        server.end({name.split("/")[0] for name in changed})
        return [(name, rule) for name, _, rule, _ in server.problems]

    return breaches


def test_a_page_that_is_true_has_no_breach(architecture):
    assert architecture() == []


@pytest.mark.parametrize("name, include, broken", [
    pytest.param("base__uuid", '"server/ledger/ledger.h"', "arrow", id="upwards"),
    pytest.param("ledger__book", '"server/intent/rules.h"', "arrow", id="upwards by one"),
    pytest.param("astra__answer", '"server/ledger/ledger.h"', "arrow", id="below but not named"),
    pytest.param("astra__answer", '"server/intent/rules.h"', "arrow", id="another header than the exception's"),
    pytest.param("intent__text", '"server/intent/fields.h"', None, id="its own room"),
    pytest.param("app__parts", '"server/ledger/ledger.h"', None, id="every room"),
    pytest.param("ledger__book", "<sqlite3.h>", "library", id="a library outside of its files"),
    pytest.param("ledger__sqlite_use", "<sqlite3.h>", None, id="a library in its files"),
])
def test_includes_follow_the_arrows_of_the_page(architecture, name, include, broken):
    found = architecture(**{name: f"#include {include}\n"})
    assert found == ([("server/" + name.replace("__", "/") + ".cc", broken)] if broken else [])


@pytest.mark.parametrize("change, rule", [
    pytest.param(("| `base` | leaf | |", "| `base` | leaf | `astra` |"), "arrow", id="a circle"),
    pytest.param(("| `base` `ledger` |", "| `base` `ledger` `astra` |"), "arrow", id="a room that does not stand above"),
    pytest.param(("| dialect | `base` |", "| dialect | `base` `ledger` |"), "arrow", id="an arrow in vain"),
    pytest.param(("`intent/fields.h`", "`intent/rules.h`"), "header", id="an exception in vain"),
    pytest.param(("`ledger/sqlite_*`", "`ledger/sqlite_*` `app/*`"), "library", id="a file in vain"),
    pytest.param(("| `astra` | dialect | `base` |\n", ""), "room", id="a room without a row"),
    pytest.param(("| `app` |", "| `hall` | none | |\n| `app` |"), "room", id="a row without a room"),
])
def test_the_page_says_nothing_that_the_code_does_not_do(architecture, change, rule):
    assert change[0] in PAGE
    assert rule in [rule for _, rule in architecture(page=PAGE.replace(*change))]


@pytest.mark.parametrize("functions, files, exceptions, expected", [
    pytest.param([("a.cc", 7, "ns::room::Long", 61, 1)], [], {}, ["Long has 61 lines, at most 60"], id="long"),
    pytest.param([("a.cc", 7, "ns::Two::Both", 61, 21)], [], {},
                 ["Two::Both has 61 lines, at most 60 and complexity 21, at most 20"], id="long and branched"),
    pytest.param([("a.cc", 7, "ns::At", 60, 20)], [("a.cc", 400)], {}, [], id="at the limits"),
    pytest.param([], [("a.cc", 401)], {}, ["a.cc has 401 lines, at most 400"], id="file"),
    pytest.param([("a.cc", 7, "ns::Long", 61, 1)], [], {"a.cc: Long": "a table"}, [], id="exception"),
    pytest.param([("b.cc", 7, "ns::Long", 61, 1), ("a.cc", 1, "ns::Long", 9, 1)], [], {"a.cc: Long": "a table"},
                 ["Long has 61 lines, at most 60", "the exception for a.cc: Long is not needed any more: take it out"],
                 id="exception of another file"),
    pytest.param([], [("a.cc", 400)], {"a.cc": "a list"}, ["the exception for a.cc is not needed any more: take it out"],
                 id="exception in vain"),
])
def test_what_is_too_large_is_listed_with_a_reason(functions, files, exceptions, expected):
    sys.path.insert(0, str(SCRIPTS))
    import check_size

    assert [why for _, why in check_size.breaches(functions, files, exceptions)] == expected
    assert all(len(reason) > 5 for reason in check_size.EXCEPTIONS.values())


def test_every_directory_and_script_is_on_the_page():
    sys.path.insert(0, str(SCRIPTS))
    import check_architecture

    page = check_architecture.Page("## Directories\n| `scripts` | x |\n| `tests` | x |\n| `tests/gone` | x |\n`test-*.sh`")
    names = ["scripts/test-a.sh", "scripts/new.sh", "scripts/sub/any.sh", "tests/unit/a.cc", "tests/CMakeLists.txt",
             "docs/a.md", "README.md"]
    assert [(rule, why) for _, _, rule, why in check_architecture.directories(page, names)] == [
        ("directory", "docs has no row"), ("directory", "tests/unit has no row"), ("directory", "tests/gone does not exist"),
        ("script", "scripts/new.sh is not named"),
    ]


def test_one_grace_period_everywhere():
    """Ten seconds more than --drain_timeout: in the compose file, in the pages, in the compose suite."""
    text = subprocess.run([BIN_DIR / "userintent-server", "--help"], capture_output=True, text=True, check=True).stdout
    grace = int(re.search(r"--drain_timeout=DURATION  \(default: (\d+)s\)", text)[1]) + 10
    compose = (REPO / "docker-compose.yml").read_text()
    assert set(re.findall(r"stop_grace_period: (\w+)", compose)) == {f"{grace}s"}
    assert f"a grace period of {grace} s" in (REPO / "docs" / "operations.md").read_text()
    assert set(re.findall(r"--timeout (\d+)", (SCRIPTS / "compose-test.sh").read_text())) == {str(grace)}
