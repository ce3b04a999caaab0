"""Settings: a wrong, unknown or contradictory one stops the start with one line on stderr that names the flag."""

import os
import pathlib
import socket
import sqlite3
import subprocess

import pytest

from support import names
from support.gateway import SERVER, Gateway, as_arguments, clean_environment, write_secret
from support.people import person
from support.process import PATIENCE, wait_for

SECRET = "quillfeather-secret-of-the-test"


@pytest.fixture(scope="module")
def files(sandbox):
    """A gateway that is not started: its directory with good secrets, and good flags."""
    gateway = Gateway(sandbox, start=False)
    yield gateway
    gateway._directory.cleanup()


def run(arguments, environment=None, cwd=None):
    return subprocess.run([str(SERVER), *arguments], capture_output=True, text=True, timeout=PATIENCE + 20,
                          env=clean_environment(**(environment or {})), cwd=cwd)


def arguments(files, changes):
    return as_arguments({**files.flags, **changes})


def test_an_address_in_use_is_one_line(files):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused(files, address, dict(listen=address))


def refused(files, flag, changes=None, extra=(), environment=None):
    ended = run([*arguments(files, changes or {}), *extra], environment, cwd=files.directory)
    assert ended.returncode == 1, f"exit {ended.returncode}: {ended.stderr[-500:]}"
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, f"{len(lines)} lines: {lines[:5]}"
    assert flag in lines[0], f"the line does not name {flag}: {lines[0]}"
    assert SECRET not in ended.stderr and SECRET not in ended.stdout
    return lines[0]


WRONG = [
    ("--listen", dict(listen="nonsense")),
    ("--listen", dict(listen="127.0.0.1:99999")),
    ("--listen", dict(listen="127.0.0.1")),
    ("--listen", dict(listen="")),
    ("--listen", dict(listen="0.0.0.0:0")),  # off loopback without TLS
    ("--listen", dict(listen="[::]:0")),
    ("--astra_base_url", dict(astra_base_url="http://127.0.0.1:1")),
    ("--astra_base_url", dict(astra_base_url="127.0.0.1:1")),
    ("--astra_base_url", dict(astra_base_url="https://127.0.0.1:1/v1")),
    ("--astra_base_url", dict(astra_base_url="https://user@127.0.0.1:1")),
    ("--astra_base_url", dict(astra_base_url="https://127.0.0.1:1?x=y")),
    ("--astra_base_url", dict(astra_base_url="https://")),
    ("--astra_base_url", dict(astra_base_url="https://10.0.0.1")),  # private
    ("--astra_base_url", dict(astra_base_url="https://192.0.2.1")),  # no connection would be made
    ("--astra_base_url", dict(astra_base_url="https://203.0.113.9")),
    ("--astra_base_url", dict(astra_base_url="https://[2001:db8::1]")),
    ("--astra_base_url", dict(astra_base_url="https://0.0.0.0", allow_private_upstream=True)),
    ("--astra_client_id_file", dict(astra_client_id_file=None)),
    ("--astra_client_secret_file", dict(astra_client_secret_file=None)),
    ("--ledger_key_file", dict(ledger_key_file=None)),
    ("--astra_client_id_file", dict(astra_client_id_file="/nonexistent/id")),
    ("--astra_client_secret_file", dict(astra_client_secret_file="/nonexistent/secret")),
    ("--ledger_key_file", dict(ledger_key_file="/nonexistent/key")),
    ("--astra_client_secret_file", dict(astra_client_secret_file="/")),
    ("--astra_ca_file", dict(astra_ca_file="/nonexistent/ca.crt")),
    ("--astra_limit_error", dict(astra_limit_error="nonsense")),
    ("--astra_limit_error", dict(astra_limit_error="400:")),
    ("--astra_limit_error", dict(astra_limit_error="400: ")),
    ("--astra_limit_error", dict(astra_limit_error="abc:text")),
    ("--connect_timeout", dict(connect_timeout="0")),
    ("--connect_timeout", dict(connect_timeout="-1s")),
    ("--connect_timeout", dict(connect_timeout="5")),  # without a unit
    ("--connect_timeout", dict(connect_timeout="20s", upstream_timeout="10s")),
    ("--upstream_timeout", dict(upstream_timeout="soon")),
    ("--upstream_timeout", dict(upstream_timeout="inf")),
    ("--upstream_connections", dict(upstream_connections="0")),
    ("--max_in_flight", dict(max_in_flight="0")),
    ("--max_in_flight", dict(max_in_flight="many")),
    ("--max_in_flight", dict(max_in_flight="99999999999999")),
    ("--min_deadline", dict(min_deadline="1h")),
    ("--default_deadline", dict(default_deadline="0s")),
    ("--ledger", dict(ledger="mysql:x")),
    ("--ledger", dict(ledger="")),
    ("--ledger", dict(ledger="sqlite:")),
    ("--email_attempt_limit", dict(email_attempt_limit="-1")),
    ("--kyc_delegation", dict(kyc_delegation="maybe")),
    ("--metrics_listen", dict(metrics_listen="nonsense")),
    ("--reflection", dict(reflection="perhaps")),
    ("--drain_timeout", dict(drain_timeout="-5s")),
    ("--log_level", dict(log_level="loud")),
    ("--tls_", dict(tls_cert_file="/nonexistent/a.crt")),
    ("--policy_file", dict(policy_file="/nonexistent/policy")),
]


@pytest.mark.parametrize("flag, changes", WRONG,
                         ids=[names.of(changes) for _, changes in WRONG])
def test_wrong_settings(files, flag, changes):
    """Each wrong value stops the start with one line that names its flag."""
    refused(files, flag, changes)


def test_unknown_flag(files):
    """A flag that does not exist stops the start, with and without a value."""
    refused(files, "no_such_flag", extra=["--no_such_flag=1"])
    refused(files, "no_such_flag", extra=["--no_such_flag"])


def test_positional_argument(files):
    """A word that is no flag stops the start."""
    refused(files, "argument", extra=["serve"])
    refused(files, "argument", extra=["--", "--listen=x"])


def test_error_lines_hold_no_value(files):
    """Someone may have put a secret where a path or a number belongs."""
    for flag in ("astra_client_secret_file", "ledger_key_file", "listen", "connect_timeout", "ledger",
                 "astra_limit_error", "max_in_flight"):
        refused(files, f"--{flag}", {flag: SECRET})
    refused(files, "argument", extra=[SECRET])
    refused(files, "USERINTENT_", environment={"USERINTENT_" + SECRET.upper().replace("-", "_"): "x"})


# -- files ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("flag", ["astra_client_id_file", "astra_client_secret_file", "ledger_key_file"])
@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666, 0o602, 0o620, 0o660], ids=oct)
def test_secrets_that_others_may_read_or_write(files, tmp_path, flag, mode):
    """A secret file with any bit for others or write for the group is refused."""
    secret = write_secret(tmp_path / "secret", (SECRET * 3).encode())
    secret.chmod(mode)
    refused(files, f"--{flag}", {flag: secret})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("flag", ["astra_client_id_file", "astra_client_secret_file", "ledger_key_file"])
def test_secrets_of_another_user(files, tmp_path, flag):
    """A secret file that belongs to another user is refused."""
    secret = write_secret(tmp_path / "secret", (SECRET * 3).encode())
    os.chown(secret, 65534, -1)
    refused(files, f"--{flag}", {flag: secret})


def test_secrets_as_kubernetes_shows_them(files, tmp_path):
    """Links to links, and readable by a group (fsGroup)."""
    (tmp_path / "..2026").mkdir()
    secret = write_secret(tmp_path / "..2026" / "secret", (SECRET * 3).encode())
    secret.chmod(0o440)
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "secret").symlink_to("..data/secret")
    ended = run([*arguments(files, dict(ledger_key_file=tmp_path / "secret")), "--check_config"], cwd=files.directory)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("flag", ["astra_client_id_file", "astra_client_secret_file", "ledger_key_file"])
@pytest.mark.parametrize("data", [b"", b"\n"], ids=["empty", "newline"])
def test_empty_secrets(files, tmp_path, flag, data):
    """A secret file without content, or with a line end alone, is refused."""
    refused(files, f"--{flag}", {flag: write_secret(tmp_path / "secret", data)})


def test_colon_in_the_client_id(files, tmp_path):
    """HTTP Basic cannot carry a colon in the user name, so the client id is refused."""
    refused(files, "--astra_client_id_file", dict(astra_client_id_file=write_secret(tmp_path / "id", "a:b")))


def test_a_short_ledger_key(files, tmp_path):
    """A ledger key under 32 bytes is refused."""
    refused(files, "--ledger_key_file", dict(ledger_key_file=write_secret(tmp_path / "key", b"x" * 31)))


def test_a_secret_that_is_a_directory(files, tmp_path):
    """A directory in the place of a secret file is refused."""
    refused(files, "--ledger_key_file", dict(ledger_key_file=tmp_path))


def test_a_ca_file_without_certificates(files, tmp_path):
    """A CA file in which no certificate can be read is refused."""
    path = tmp_path / "ca.crt"
    path.write_text("not a certificate\n")
    refused(files, "--astra_ca_file", dict(astra_ca_file=path))
    path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    refused(files, "--astra_ca_file", dict(astra_ca_file=path))


def test_one_trailing_newline_is_removed(new_gateway, sandbox, tmp_path):
    """Secrets written by an editor, with a line end, log in at Astra."""
    new_gateway(astra_client_id_file=write_secret(tmp_path / "id", "sandbox-client\n"),
                astra_client_secret_file=write_secret(tmp_path / "secret", "sandbox-secret\n")).create(person()).ok()


# -- TLS -------------------------------------------------------------------------------------------------------------------

def test_tls_flags_go_together(files, authority):
    """Each of the three TLS flags without the others is refused; all of them are accepted."""
    key, certificate = authority.issue("config", ["DNS:localhost"])
    whole = dict(tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=authority.ca_file)
    for missing in whole:
        refused(files, "--tls_", {**whole, missing: None})
    assert run([*arguments(files, whole), "--check_config"]).returncode == 0


def test_tls_key_of_another_certificate(files, authority):
    """A key that does not fit the certificate is refused, and so is one that others may read."""
    key, certificate = authority.issue("config-one", ["DNS:localhost"])
    other, _ = authority.issue("config-two", ["DNS:localhost"])
    refused(files, "--tls_key_file", dict(tls_cert_file=certificate, tls_key_file=other,
                                          tls_client_ca_file=authority.ca_file))
    key.chmod(0o644)
    refused(files, "--tls_key_file", dict(tls_cert_file=certificate, tls_key_file=key,
                                          tls_client_ca_file=authority.ca_file))


def test_tls_and_plaintext_contradict(files, authority):
    """TLS files and --allow_plaintext at once are refused."""
    key, certificate = authority.issue("config-three", ["DNS:localhost"])
    refused(files, "--allow_plaintext", dict(tls_cert_file=certificate, tls_key_file=key, allow_plaintext=True,
                                             tls_client_ca_file=authority.ca_file))


def test_plaintext_off_loopback_is_warned_about(new_gateway):
    """A port without TLS that is open to the network is a warning in the log."""
    open_to_all = new_gateway(listen="0.0.0.0:0", allow_plaintext=True)
    warnings = [entry for entry in open_to_all.log() if entry.get("event") == "warning"]
    assert any("allow_plaintext" in str(entry) for entry in warnings)


def test_a_ledger_in_memory_says_so(new_gateway):
    """A ledger that a restart loses is a warning in the log."""
    warnings = [entry for entry in new_gateway().log() if entry.get("event") == "warning"]
    assert any("ledger" in str(entry) for entry in warnings)


# -- ports -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("flag", ["listen", "metrics_listen"])
def test_a_port_in_use(files, flag):
    """A port that another process has stops the start with one line that names the flag."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run(arguments(files, {flag: address}), cwd=files.directory)
    assert ended.returncode == 1
    plain = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert len(plain) == 1 and f"--{flag}" in plain[0], ended.stderr[-600:]


def test_two_gateways_on_one_port(new_gateway, files):
    """A second gateway on the same port does not start, and the first one serves on."""
    first = new_gateway()
    ended = run(arguments(files, dict(listen=first.address)), cwd=files.directory)
    assert ended.returncode == 1 and "--listen" in ended.stderr
    first.create(person()).ok()


# -- the environment ---------------------------------------------------------------------------------------------------------

def test_environment_twins(new_gateway, sandbox):
    """A variable USERINTENT_X sets the flag x."""
    own = new_gateway(email_attempt_limit=None, environment={"USERINTENT_EMAIL_ATTEMPT_LIMIT": "2"})
    assert own.create(person(validate_only=True)).ok().attempts.limit == 2


def test_a_flag_beats_its_twin(new_gateway):
    own = new_gateway(email_attempt_limit=1, environment={"USERINTENT_EMAIL_ATTEMPT_LIMIT": "2"})
    assert own.create(person(validate_only=True)).ok().attempts.limit == 1


def test_unknown_variable(files):
    """A variable that begins with USERINTENT_ and is no flag's stops the start."""
    refused(files, "USERINTENT_", environment={"USERINTENT_NO_SUCH_FLAG": "1"})
    refused(files, "USERINTENT_", environment={"USERINTENT_listen": "127.0.0.1:0"})


def test_a_wrong_twin_is_named(files):
    """A wrong value from a variable is reported without the value."""
    line = refused(files, "listen", dict(listen=None), environment={"USERINTENT_LISTEN": "nonsense"})
    assert "nonsense" not in line


# -- --help, --check_config --------------------------------------------------------------------------------------------------

CONTRACT_FLAGS = """listen tls_cert_file tls_key_file tls_client_ca_file allow_plaintext policy_file astra_base_url
astra_client_id_file astra_client_secret_file astra_ca_file allow_private_upstream astra_limit_error connect_timeout
upstream_timeout upstream_connections max_in_flight default_deadline min_deadline ledger ledger_key_file
email_attempt_limit kyc_delegation allow_non_public_ip metrics_listen reflection drain_timeout log_level""".split()


def test_help():
    """--help lists every flag of the contract, and the defaults."""
    ended = run(["--help"])
    assert ended.returncode == 0
    for flag in CONTRACT_FLAGS:
        assert f"--{flag}" in ended.stdout, flag
    for default in ("127.0.0.1:50051", "127.0.0.1:9464", "https://api-sandbox.astra.finance", "sqlite:data/ledger.db",
                    "3s", "30s", "35s", "100ms"):
        assert default in ended.stdout, default
    assert "--check_config" in ended.stdout and "--healthcheck" in ended.stdout


def test_check_config(files):
    """--check_config accepts what a start accepts and refuses what a start refuses."""
    ended = run([*arguments(files, {}), "--check_config"], cwd=files.directory)
    assert ended.returncode == 0, ended.stderr
    refused(files, "--astra_base_url", dict(astra_base_url="http://x"), extra=["--check_config"])
    refused(files, "--ledger_key_file", dict(ledger_key_file="/nonexistent"), extra=["--check_config"])


def test_check_config_touches_nothing(files, new_gateway, tmp_path):
    """--check_config opens no port, asks no upstream and makes no ledger."""
    running = new_gateway()
    # The port is in use and the upstream is dead: neither is looked at. No ledger is made.
    ended = run([*arguments(files, dict(listen=running.address, astra_base_url="https://127.0.0.1:1",
                                        ledger="sqlite:" + str(tmp_path / "new" / "ledger.db"))), "--check_config"],
                cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_check_config_of_the_defaults_needs_only_the_secrets(files, tmp_path):
    ended = run(["--check_config", f"--astra_client_id_file={files.client_id_file}",
                 f"--astra_client_secret_file={files.client_secret_file}",
                 f"--ledger_key_file={files.ledger_key_file}"], cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


def test_check_config_and_a_start_name_every_wrong_setting(files):
    wrong = dict(listen="nonsense", max_in_flight="0", ledger_key_file="/nonexistent", log_level="loud")
    for extra in ([], ["--check_config"]):
        ended = run([*arguments(files, wrong), "--no_such_flag", *extra], cwd=files.directory)
        assert ended.returncode == 1
        lines = ended.stderr.strip().splitlines()
        assert len(lines) == 5, lines
        for flag in ("no_such_flag", *wrong):
            assert sum(line.startswith(f"userintent-server: --{flag}: ") for line in lines) == 1, (flag, lines)


def test_the_short_flag_for_help():
    """-h prints what --help prints."""
    assert run(["-h"]).stdout == run(["--help"]).stdout != ""


# -- the ledger's place ------------------------------------------------------------------------------------------------------

def ledger_flags(path):
    return dict(ledger=f"sqlite:{path}", retention="400d")


@pytest.mark.parametrize("extra", [[], ["--check_config"]], ids=["start", "check_config"])
@pytest.mark.parametrize("kind", ["notes", "database"])
def test_a_ledger_that_is_none_is_left_as_it_is(files, tmp_path, extra, kind):
    path = tmp_path / "precious"
    if kind == "notes":
        path.write_text("somebody's notes\n" * 20)
    else:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE somebody (name TEXT)")
        other.close()
    path.chmod(0o644)
    before = path.read_bytes()
    refused(files, "--ledger", ledger_flags(path), extra=extra)
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("extra", [[], ["--check_config"]], ids=["start", "check_config"])
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o703], ids=oct)
def test_a_ledger_directory_that_others_may_write(files, tmp_path, extra, mode):
    """A ledger in a directory that others may write is refused, and nothing is made there."""
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(mode)
    refused(files, "--ledger", ledger_flags(directory / "ledger.db"), extra=extra)
    assert list(directory.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_ledger_directory_of_another_user(files, tmp_path):
    """A ledger in another user's directory is refused."""
    directory = tmp_path / "theirs"
    directory.mkdir(mode=0o700)
    os.chown(directory, 65534, -1)
    refused(files, "--ledger", ledger_flags(directory / "ledger.db"), extra=["--check_config"])
    refused(files, "--ledger", ledger_flags(directory / "ledger.db"))


def test_check_config_knows_the_ledgers_key(files, new_gateway, tmp_path):
    """--check_config accepts the key of the ledger, refuses another one, and changes no file."""
    path = tmp_path / "ledger.db"
    flags = ledger_flags(path)
    other_key = write_secret(tmp_path / "other-key", b"y" * 32)
    own = new_gateway(**flags)
    own.create(person()).ok()
    # A running server's ledger is in use, and fine.
    same = dict(flags, ledger_key_file=own.flags["ledger_key_file"])
    assert run([*arguments(files, same), "--check_config"], cwd=files.directory).returncode == 0
    own.create(person()).ok()
    own.kill()  # its log is left behind
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir() if entry.is_file()}
    ended = run([*arguments(files, same), "--check_config"], cwd=files.directory)
    assert ended.returncode == 0, ended.stderr
    assert "another key" in refused(files, "--ledger", dict(same, ledger_key_file=other_key), extra=["--check_config"])
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir() if entry.is_file()} == before


def test_no_settings_at_all(tmp_path):
    """Without settings, one line names each of the three flags that are required."""
    ended = run([], cwd=tmp_path)
    assert ended.returncode == 1
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 3, lines
    for flag in ("astra_client_id_file", "astra_client_secret_file", "ledger_key_file"):
        assert sum(f"--{flag}: required" in line for line in lines) == 1, lines


def test_the_probe_says_words(tmp_path):
    """--healthcheck without a server says so in words and not in a code."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        ended = run(["--healthcheck", f"--listen=127.0.0.1:{free.getsockname()[1]}"], cwd=tmp_path)
    assert ended.returncode == 1
    assert "no connection" in ended.stderr and "code" not in ended.stderr, ended.stderr


def test_build_info_tells_releases(new_gateway):
    """userintent_build_info names the release of gRPC."""
    info = [name for name in new_gateway().metrics() if name.startswith("userintent_build_info")]
    assert len(info) == 1 and 'grpc="1.' in info[0], info


# -- files that change under a running server --------------------------------------------------------------------------------

def events(gateway, name):
    return [entry for entry in gateway.log() if entry.get("event") == name]


@pytest.mark.parametrize("how", ["auto", "libcurl"])
def test_the_authorities_of_astra_are_read_again(new_gateway, sandbox, authority, tmp_path, how):
    bundle, fresh = tmp_path / "ca.crt", tmp_path / "ca.crt.new"

    def put(data):
        fresh.write_bytes(data)
        fresh.rename(bundle)

    wrong, right = authority.ca_file.read_bytes(), pathlib.Path(sandbox.ca_file).read_bytes()
    put(wrong)
    own = new_gateway(astra_ca_file=bundle, upstream_transport=how)
    stranger = person()
    own.create(stranger, timeout=5).failed("UPSTREAM_UNREACHABLE")
    assert sandbox.posts(stranger.email) == []
    put(wrong + right)
    wait_for(lambda: events(own, "astra_ca_reloaded"), "the new authorities")
    own.create(person()).ok()
    # A broken file is told each time that it changes, and the last good one stays.
    for number, broken in enumerate((b"", b"nonsense\n", b"other nonsense\n"), 1):
        put(broken)
        wait_for(lambda number=number: len(events(own, "astra_ca_not_reloaded")) >= number, "a line about the file")
    own.create(person()).ok()
    assert own.metrics()['userintent_credential_reloads_total{result="ok"}'] == 1
    put(right)
    wait_for(lambda: len(events(own, "astra_ca_reloaded")) >= 2, "the good authorities")
    own.create(person()).ok()


def test_broken_credentials_are_logged_each_time_that_they_change(new_gateway, tmp_path):
    secret, fresh = tmp_path / "secret", tmp_path / "secret.new"
    write_secret(secret, "sandbox-secret\n")
    own = new_gateway(astra_client_secret_file=secret)
    for number in (1, 2, 3):
        write_secret(fresh, f"{SECRET}\nline {number}\n")
        fresh.rename(secret)
        wait_for(lambda number=number: len(events(own, "credentials_not_reloaded")) >= number, "a line about the file")
    own.create(person()).ok()  # with the last good ones
    assert SECRET not in str(own.log())
