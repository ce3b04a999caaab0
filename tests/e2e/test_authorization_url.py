"""GetAuthorizationUrl: the URLs of the shared cases, which page each status leads to, what is refused and in which order, whose
intents, the client id of the moment, and that nothing of the URL is kept or logged.
"""

import json
import os
import subprocess
import urllib.parse
import uuid

import grpc
import pytest

from support.certs import Authority
from support.gateway import SERVER, Gateway
from support.people import person
from support.process import wait_for, write_secret
from support.protos import REPO, pb
from support.sandbox import CLIENT_ID

CASES = json.loads((REPO / "tests" / "conformance" / "authorization_urls.json").read_text())["cases"]
REFUSED_URIS = {case["redirect_uri"] for case in CASES if "redirect_uri" in case.get("violations", ())}
GOOD_URIS = sorted({case["redirect_uri"] for case in CASES} - REFUSED_URIS)
URI = "https://app.example.com/astra/done"
STATE = "Canary-State.of_this~test"
APP = "https://app-sandbox.astra.finance"


def registered(uris):
    """The value of the flag. A URI with a comma cannot be registered."""
    return ",".join(uri for uri in uris if "," not in uri)


@pytest.fixture(scope="module")
def gateway_process(sandbox):
    gateway = Gateway(sandbox, astra_read_rate=0, upstream_breaker=False, oauth_redirect_uri=registered(GOOD_URIS))
    yield gateway
    gateway.close()


def create(gateway, **changes):
    request = person(**changes)
    return request, gateway.create(request).ok().user_intent.id


def parts(url):
    """The URL without its query, and the query's names and values."""
    base, _, query = url.partition("?")
    return base, dict(pair.split("=") for pair in query.split("&"))


PAGES = {"pending": ("AUTHORIZE", "/login/oauth/authorize"), "approved": ("AUTHORIZE", "/login/oauth/authorize"),
         "retry": ("VERIFY_PERSONAL", "/verify/personal"), "document": ("VERIFY_DOCUMENT", "/verify/document"),
         "converted_to_user": ("AUTHORIZE", "/login/oauth/authorize")}


@pytest.mark.parametrize("word", PAGES)
def test_each_status_leads_to_its_page(gateway, sandbox, word):
    request, intent = create(gateway)
    sandbox.review(intent, status=word)
    name, path = PAGES[word]
    for by, key in (("request_id", request.request_id), ("request_id", request.request_id.upper()), ("user_intent_id", intent)):
        response = gateway.authorize(key, URI, STATE, by=by).ok()
        assert pb.AuthorizationPage.Name(response.page) == f"AUTHORIZATION_PAGE_{name}"
        assert response.user_intent.astra_status == word and response.user_intent.id == intent
        wanted = {"client_id": CLIENT_ID, "redirect_uri": "https%3A%2F%2Fapp.example.com%2Fastra%2Fdone", "state": STATE}
        if name == "AUTHORIZE":
            wanted["response_type"] = "code"
        user = response.user_intent.user_id
        assert bool(user) == (word == "converted_to_user")
        wanted.update({"user_id": user} if user else {"user_intent_id": intent})
        assert parts(response.url) == (APP + path, wanted)
    assert len(sandbox.gets(intent)) == 3  # the page belongs to the status of now


@pytest.mark.parametrize("word", ["rejected", "suspended"])
def test_no_page_for_a_person_who_was_turned_down(gateway, sandbox, word):
    request, intent = create(gateway)
    sandbox.review(intent, status=word)
    gateway.authorize(request, URI, STATE).failed("USER_INTENT_NOT_ELIGIBLE", recovery="STOP")
    assert gateway.read(request).ok().user_intent.astra_status == word  # which the caller may still read


def test_a_word_that_is_not_known_and_none(gateway, sandbox):
    request, intent = create(gateway)
    for body in ({"id": intent, "status": "napping"}, {"id": intent}):
        sandbox.answer_get(intent, 200, body)
        response = gateway.authorize(request, URI, STATE).ok()
        assert response.page == pb.AUTHORIZATION_PAGE_AUTHORIZE
        assert response.user_intent.status == pb.USER_INTENT_STATUS_UNSPECIFIED


# -- the shared cases ----------------------------------------------------------------------------------------------------

def sensible(case):
    """What of the cases a gateway in front of the sandbox can be brought to."""
    return case["app_url"] == APP and case["client_id"] == "0a1b2c3d4e5f" and "," not in case["redirect_uri"]


@pytest.mark.parametrize("case", [case for case in CASES if sensible(case)], ids=lambda case: case["name"])
def test_shared_case(gateway, sandbox, case):
    request = person()
    sandbox.fault("delay", request.email, intent_id=case["user_intent_id"][:250] + request.request_id[:6])  # a new one
    intent = gateway.create(request).ok().user_intent.id
    said = {"id": intent, "user_id": case["user_id"] or None}
    if case["status"] != "UNSPECIFIED":
        said["status"] = case["status"].lower()
    sandbox.answer_get(intent, 200, said)
    reply = gateway.authorize(request, case["redirect_uri"], case["state"])
    if "reason" in case:
        error = reply.failed(case["reason"])
        if "violations" in case:
            assert list(error.violations) == case["violations"]
            assert sandbox.gets(intent) == []
    else:
        quoted = urllib.parse.quote
        wanted = case["url"].replace(quoted(case["user_intent_id"], safe=""), quoted(intent, safe=""))
        wanted = wanted.replace("client_id=0a1b2c3d4e5f", f"client_id={CLIENT_ID}")
        response = reply.ok()
        assert response.url == wanted
        assert pb.AuthorizationPage.Name(response.page) == f"AUTHORIZATION_PAGE_{case['page']}"
    sandbox.clear_faults()


# -- refusals ------------------------------------------------------------------------------------------------------------

def test_every_broken_field_is_named_before_anything_else(gateway, sandbox):
    assert list(gateway.authorize(None, "", "").failed("FIELD_INVALID").violations) == ["key", "redirect_uri", "state"]
    reply = gateway.authorize("no-uuid", "https://elsewhere.example.com/", STATE)
    assert list(reply.failed("FIELD_INVALID").violations) == ["request_id", "redirect_uri"]
    reply = gateway.authorize("x" * 257, URI, "short", by="user_intent_id")
    assert list(reply.failed("FIELD_INVALID").violations) == ["user_intent_id", "state"]
    request, intent = create(gateway)
    sandbox.review(intent, status="rejected")
    assert list(gateway.authorize(request, URI, "short").failed("FIELD_INVALID").violations) == ["state"]
    assert list(gateway.authorize(str(uuid.uuid4()), URI, "short").failed("FIELD_INVALID").violations) == ["state"]
    assert sandbox.gets(intent) == []


@pytest.mark.parametrize("uri", [URI + "/", URI.upper(), URI + "?", "https://app.example.com/astra", "https://app.example.com/astra/done%20",
                                 "https://app.example.com:443/astra/done", "https://app.example.com/astra/./done"])
def test_a_redirect_uri_is_a_registered_one_byte_by_byte(gateway, uri):
    request, _ = create(gateway)
    assert list(gateway.authorize(request, uri, STATE).failed("FIELD_INVALID").violations) == ["redirect_uri"]


def test_without_a_registered_uri_there_is_no_url(new_gateway, sandbox):
    own = new_gateway()
    request, intent = create(own)
    for uri in (URI, ""):
        assert list(own.authorize(request, uri, STATE).failed("FIELD_INVALID").violations) == ["redirect_uri"]
    assert sandbox.gets(intent) == []


def test_the_errors_of_a_read(gateway, sandbox):
    gateway.authorize(str(uuid.uuid4()), URI, STATE).failed("REQUEST_NOT_FOUND", recovery="STOP")
    gateway.authorize("of-nobody", URI, STATE, by="user_intent_id").failed("USER_INTENT_NOT_FOUND", recovery="STOP")
    rejected = person()
    sandbox.answer(rejected.email, 422, {"code": 422, "name": "x"})
    gateway.create(rejected).failed("UPSTREAM_REJECTED")
    gateway.authorize(rejected, URI, STATE).failed("NOT_CREATED", recovery="STOP")
    request, intent = create(gateway)
    sandbox.answer_get(intent, 404)
    gateway.authorize(request, URI, STATE).failed("USER_INTENT_NOT_FOUND", http_status=404)
    sandbox.answer_get(intent, 403)
    gateway.authorize(request, URI, STATE).failed("UPSTREAM_CREDENTIALS_REJECTED", http_status=403)
    sandbox.answer_get(intent, 500, times=1)
    assert gateway.authorize(request, URI, STATE).ok().url  # repeated within the call
    gateway.authorize(request, URI, STATE, timeout=0.09).failed("DEADLINE_TOO_SHORT")


def test_another_callers_intent_is_not_told(sandbox):
    authority = Authority()
    key, certificate = authority.issue("server", ["DNS:localhost"])
    own = Gateway(sandbox, tls_cert_file=certificate, tls_key_file=key, tls_client_ca_file=authority.ca_file, oauth_redirect_uri=URI)
    try:
        channels = []
        for name in ("a", "b"):
            client_key, client_certificate = authority.issue(name, [f"URI:spiffe://example.test/{name}"])
            channels.append(own.new_channel(grpc.ssl_channel_credentials(
                authority.ca_file.read_bytes(), client_key.read_bytes(), client_certificate.read_bytes())))
        request = person()
        intent = own.create(request, channel=channels[0]).ok().user_intent.id
        assert own.authorize(request, URI, STATE, channel=channels[0]).ok().url
        own.authorize(request, URI, STATE, channel=channels[1]).failed("REQUEST_NOT_FOUND")
        own.authorize(intent, URI, STATE, channel=channels[1], by="user_intent_id").failed("USER_INTENT_NOT_FOUND")
    finally:
        own.close()
        authority.close()


# -- the settings --------------------------------------------------------------------------------------------------------

def test_the_client_id_of_the_url_is_that_of_the_file(new_gateway, sandbox):
    """A new id is in the URL within seconds. The sandbox knows the old one only, so what it says to a GET is laid down."""
    own = new_gateway(oauth_redirect_uri=URI)
    request, intent = create(own)
    assert parts(own.authorize(request, URI, STATE).ok().url)[1]["client_id"] == CLIENT_ID
    fresh = write_secret(own.directory / "client_id.new", "another client&id=1\n")
    os.rename(fresh, own.client_id_file)
    sandbox.answer_get(intent, 200, {"id": intent, "status": "approved"}, times=0)

    def told():
        return parts(own.authorize(request, URI, STATE).ok().url)[1]["client_id"] == "another%20client%26id%3D1"

    wait_for(told, "the new client id in the URL")
    sandbox.clear_faults()


def test_the_host_of_the_pages(new_gateway):
    own = new_gateway(oauth_redirect_uri=URI, astra_app_url="https://Pages.example.com:8443")
    request, _ = create(own)
    assert own.authorize(request, URI, STATE).ok().url.startswith("https://pages.example.com:8443/login/oauth/authorize?")


@pytest.mark.parametrize("uri", sorted(REFUSED_URIS - {""}))
def test_a_uri_that_cannot_be_registered(gateway, uri):
    checked = subprocess.run([SERVER, *gateway.arguments(), f"--oauth_redirect_uri={uri}", "--check_config"], capture_output=True, text=True,
                             check=False)
    assert checked.returncode == 1
    [line] = checked.stderr.strip().splitlines()
    assert line.startswith("userintent-server: --oauth_redirect_uri: must be https URIs")
    assert uri not in line


# -- what is kept --------------------------------------------------------------------------------------------------------

def test_nothing_of_the_url_is_logged(new_gateway, sandbox):
    """At the most talkative level, when all goes well and when nothing does."""
    own = new_gateway(oauth_redirect_uri=URI, log_level="trace")
    request, intent = create(own)
    own.new_output()
    url = own.authorize(request, URI, STATE).ok().url
    sandbox.answer_get(intent, 404)
    own.authorize(request, URI, STATE).failed("USER_INTENT_NOT_FOUND")
    assert list(own.authorize(request, "https://elsewhere.example.com/canary", "canary state").failed("FIELD_INVALID").violations)
    told = own.new_output()
    assert "read_ended" in told
    for word in (url, STATE, URI, "app.example.com", "elsewhere.example.com", "canary state", "/login/oauth", "response_type"):
        assert word not in told, word
