"""Variables of the environment that libraries would heed: taken out before a library sees them, and named in a warning without
their value, by the server and by the operators' tool. What is not on the list is left alone."""

import contextlib
import json
import ssl
import subprocess

import grpc
import pytest

from support.certs import Authority
from support.gateway import SERVER
from support.ledger_tool import run as run_tool
from support.people import person
from support.process import PATIENCE, as_arguments, clean_environment
from support.wire import TcpTap, connect

VALUE = "Skoffelbrint-Quaddimurzel"
TAKEN_OUT = ["GRPC_TRACE", "GRPC_VERBOSITY", "GRPC_STACKTRACE_MINLOGLEVEL", "GRPC_EXPERIMENTS", "GRPC_POLL_STRATEGY",
             "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "GRPC_SSL_CIPHER_SUITES", "GRPC_DNS_RESOLVER", "GRPC_ENABLE_FORK_SUPPORT",
             "GRPC_ABORT_ON_LEAKS", "GRPC_XDS_BOOTSTRAP", "GRPC_A_NEW_ONE", "SSLKEYLOGFILE", "OPENSSL_CONF", "OPENSSL_CONF_INCLUDE",
             "OPENSSL_ENGINES", "OPENSSL_MODULES", "OPENSSL_TRACE", "SSL_CERT_FILE", "SSL_CERT_DIR", "CTLOG_FILE", "CURL_HOME",
             "CURL_SSL_BACKEND", "CURL_ENTROPY", "CURL_CA_BUNDLE", "http_proxy", "https_proxy", "all_proxy", "no_proxy", "grpc_proxy", "HTTP_PROXY",
             "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "MALLOC_CONF"]
PROXIES = [name for name in TAKEN_OUT if name.lower().endswith("_proxy")]


def warned_of(gateway):
    """The names in the warnings about variables."""
    lines = [entry["warning"] for entry in gateway.log() if entry.get("event") == "warning" and ": not heeded: " in entry["warning"]]
    return [name for line in lines for name in line.partition(": ")[0].split(", ")]


@pytest.mark.parametrize("name", TAKEN_OUT)
def test_a_start_names_it_and_goes_on(files, name):
    """--check_config tells ahead what a start would; one line, without the value."""
    ended = subprocess.run([str(SERVER), "--check_config", *as_arguments(files.flags)], capture_output=True, text=True,
                           timeout=PATIENCE + 30, env=clean_environment(**{name: VALUE}), cwd=files.directory)
    assert ended.returncode == 0, ended.stderr[-500:]
    lines = [line for line in ended.stderr.splitlines() if "not heeded" in line]
    assert len(lines) == 1 and lines[0].startswith(f"warning: {name}: "), ended.stderr
    assert VALUE not in ended.stderr + ended.stdout


@pytest.fixture(scope="module")
def files(sandbox):
    """Settings and files of a server that is not started."""
    from support.server import Server
    server = Server(sandbox, start=False)
    yield server
    server.close()


def test_all_of_them_at_once(new_gateway):
    """With a call served; every line is one of ours, and each variable is named once."""
    own = new_gateway(environment=dict.fromkeys(TAKEN_OUT, VALUE), log_level="trace")
    own.create(person()).ok()
    own.stop()
    assert sorted(warned_of(own)) == sorted(TAKEN_OUT)
    assert VALUE not in own.process.text() + own.process.text("stdout")
    for line in own.process.lines():
        json.loads(line)


@pytest.mark.parametrize("environment", [
    dict(GRPC_TRACE="all", GRPC_VERBOSITY="DEBUG", GRPC_STACKTRACE_MINLOGLEVEL="DEBUG"), dict(GRPC_TRACE="http,secure_endpoint,api"),
    dict(GRPC_VERBOSITY="INFO"), dict(MALLOC_CONF="stats_print:true,prof:true,prof_final:true,confirm_conf:true")],
    ids=["everything", "the wire", "verbosity", "the allocator"])
def test_libraries_print_nothing(new_gateway, environment):
    """Calls with headers and persons, good ones, broken ones, and an end: the log is ours alone."""
    own = new_gateway(environment=environment, log_level="trace")
    own.create(person(), metadata=[("x-mark", VALUE), ("x-mark-bin", VALUE.encode())]).ok()
    own.create_bytes(VALUE.encode() * 3).error.expect("MALFORMED_REQUEST")
    with contextlib.suppress(OSError), connect(own.address) as plain:
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + VALUE.encode() * 9)
        plain.recv(100)
    own.stop()
    for line in own.process.lines():
        assert json.loads(line)["event"], line
    assert own.process.text("stdout") == ""
    assert VALUE not in own.process.text()
    assert {path.name for path in own.directory.iterdir()} == {"client_id", "client_secret", "ledger.key"}


@pytest.mark.parametrize("transport", ["nghttp2", "libcurl"])
def test_certificates_come_from_the_flags_alone(new_gateway, sandbox, tmp_path, transport):
    """Where no --astra_ca_file is given, no variable adds an authority; a call ends before anything is sent."""
    own = new_gateway(environment=dict(SSL_CERT_FILE=str(sandbox.ca_file), SSL_CERT_DIR=str(tmp_path), CURL_CA_BUNDLE=str(sandbox.ca_file),
                                       GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=str(sandbox.ca_file)),
                      astra_ca_file=None, upstream_transport=transport)
    request = person()
    own.create(request).failed("UPSTREAM_UNREACHABLE")
    assert sandbox.posts(request.email) == []


def test_settings_of_openssl_come_from_the_system_alone(new_gateway, tmp_path):
    """A file that takes the algorithms away, or lets old TLS in, is not read: calls over TLS go on, and old TLS is refused."""
    without = tmp_path / "without.cnf"
    without.write_text("openssl_conf = it\n[it]\nproviders = none\n[none]\nnull = null\n[null]\nactivate = 1\n")
    weak = tmp_path / "weak.cnf"
    weak.write_text("openssl_conf = it\n[it]\nssl_conf = ssl\n[ssl]\nsystem_default = weak\n[weak]\nMinProtocol = TLSv1\n"
                    "CipherString = ALL:@SECLEVEL=0\n")
    authority = Authority()
    key, certificate = authority.issue("gateway", ["DNS:localhost", "IP:127.0.0.1"])
    client_key, client = authority.issue("client", ["URI:spiffe://test.example/client"])
    for file in (without, weak):
        own = new_gateway(environment=dict(OPENSSL_CONF=str(file), GRPC_SSL_CIPHER_SUITES="AES128-SHA"), tls_cert_file=certificate,
                          tls_key_file=key, tls_client_ca_file=authority.ca_file)
        channel = own.new_channel(grpc.ssl_channel_credentials(authority.ca_file.read_bytes(), client_key.read_bytes(), client.read_bytes()))
        own.create(person(), channel=channel).ok()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(client, client_key)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with connect(own.address) as plain, context.wrap_socket(plain) as wrapped:
            assert "GCM" in wrapped.cipher()[0] or "CHACHA20" in wrapped.cipher()[0], wrapped.cipher()
        own.stop()
    authority.close()


def test_the_probe_asks_no_proxy(new_gateway):
    """--healthcheck with TLS-less gRPC as its fallback: a proxy of the environment gets no connection."""
    own = new_gateway()
    tap = TcpTap("close")
    proxies = {name: f"http://127.0.0.1:{tap.port}" for name in PROXIES if not name.lower().startswith("no_")}
    ended = subprocess.run([str(SERVER), "--healthcheck", *as_arguments({**own.flags, "listen": own.address})], capture_output=True, text=True,
                           timeout=PATIENCE + 30, env=clean_environment(**proxies), cwd=own.directory)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "serving\n", "")
    assert tap.accepted == 0
    tap.close()


def test_other_variables_are_left_alone(new_gateway):
    own = new_gateway(environment=dict(GRPCX="1", OPENSSL_ia32cap="~0x0", HOSTALIASES="/nowhere", LANG="C"))
    own.create(person()).ok()
    assert warned_of(own) == []


@pytest.mark.parametrize("name", TAKEN_OUT)
def test_the_tool_names_what_would_make_it_print(ledger, name):
    """It reaches nothing but a socket of its machine, so what is about proxies and certificates is not told at each use."""
    ended = run_tool(f"--ledger=sqlite:{ledger.path}", "--json", "check", "/nowhere", environment={name: VALUE})
    lines = ended.err.splitlines()
    assert lines.pop().startswith("userintent-ledger: ledger /nowhere")
    prints = name.startswith("GRPC_") and "SSL" not in name
    assert len(lines) == prints and all(line.startswith(f"userintent-ledger: warning: {name}: ") for line in lines), ended.err
    assert VALUE not in ended.err + ended.out


def test_the_tool_works_with_all_of_them(durable, ledger):
    gateway = durable(environment=dict(GRPC_TRACE="all", GRPC_VERBOSITY="DEBUG"))
    request = person()
    gateway.create(request).ok()
    trace = dict(GRPC_TRACE="all", GRPC_VERBOSITY="DEBUG", https_proxy="http://127.0.0.1:1", http_proxy="http://127.0.0.1:1")
    ended = run_tool(f"--ledger=sqlite:{ledger.path}", "--json", "show", request.request_id, environment=trace)
    assert ended.code == 0 and json.loads(ended.out)["requests"]
    assert ended.err.count("\n") == 1, ended.err
