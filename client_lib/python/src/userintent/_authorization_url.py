"""The page of Astra's to which a person goes next, as a URL."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import urllib.parse
from typing import NamedTuple

import grpc

from ._errors import Decoded, Violation, make_error
from .v1 import user_intent_service_pb2 as pb

_REDIRECT = re.compile(r"(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?"
                       r"(?:[/?](?:[A-Za-z0-9._~:/?@\[\]!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)?")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_STATE = re.compile(r"[A-Za-z0-9._~-]{16,256}")

_PAGES = {
    pb.AUTHORIZATION_PAGE_AUTHORIZE: "/login/oauth/authorize",
    pb.AUTHORIZATION_PAGE_VERIFY_DOCUMENT: "/verify/document",
    pb.AUTHORIZATION_PAGE_VERIFY_PERSONAL: "/verify/personal",
}


class AuthorizationUrl(NamedTuple):
    """url holds no personal data and no secret; with the intent's id in it, it belongs in no log all the same."""

    url: str
    page: pb.AuthorizationPage


def authorization_url(app_url: str, client_id: str, user_intent: pb.UserIntent, redirect_uri: str,
                      state: str) -> AuthorizationUrl:
    """The page for an intent that was read already, without a call: the same URL and the same refusals as
    get_authorization_url, but for what only the gateway knows, the redirect URIs that are registered.

    app_url: of Astra's pages, https://app.astra.finance, in its sandbox https://app-sandbox.astra.finance.
    client_id: the program's id at Astra. Raises InvalidRequestError (FIELD_INVALID: violations), and StopError
    (USER_INTENT_NOT_ELIGIBLE) for a person who was rejected or suspended.
    """
    refused = Decoded(grpc.StatusCode.INVALID_ARGUMENT, "a part of the URL breaks its rule", "FIELD_INVALID",
                      {"recovery": "FIX_REQUEST", "user_intent_id": user_intent.id}, (), None, None, read=True,
                      not_repeated="not_retryable")
    violations = []
    if not _is_redirect_uri(redirect_uri):
        violations.append(Violation("redirect_uri", "required: an https URI (http for loopback only) without user and fragment"))
    if not _STATE.fullmatch(state):
        violations.append(Violation("state", "required: 16-256 of [A-Za-z0-9._~-]"))
    if violations:
        raise make_error(dataclasses.replace(refused, violations=tuple(violations)), "", 0, None)
    if user_intent.status in (pb.USER_INTENT_STATUS_REJECTED, pb.USER_INTENT_STATUS_SUSPENDED):
        raise make_error(dataclasses.replace(
            refused, code=grpc.StatusCode.FAILED_PRECONDITION, reason="USER_INTENT_NOT_ELIGIBLE",
            message="there is no page for a person who was rejected or suspended",
            metadata={"recovery": "STOP", "user_intent_id": user_intent.id}), "", 0, None)
    page = {
        pb.USER_INTENT_STATUS_DOCUMENT: pb.AUTHORIZATION_PAGE_VERIFY_DOCUMENT,
        pb.USER_INTENT_STATUS_RETRY: pb.AUTHORIZATION_PAGE_VERIFY_PERSONAL,
    }.get(user_intent.status, pb.AUTHORIZATION_PAGE_AUTHORIZE)
    who = {"user_intent_id": user_intent.id}
    if user_intent.status == pb.USER_INTENT_STATUS_CONVERTED_TO_USER and user_intent.user_id:
        who = {"user_id": user_intent.user_id}
    authorize = {"response_type": "code"} if page == pb.AUTHORIZATION_PAGE_AUTHORIZE else {}
    query = {"client_id": client_id, "redirect_uri": redirect_uri, **authorize, **who, "state": state}
    text = urllib.parse.urlencode(query, quote_via=urllib.parse.quote, safe="")
    return AuthorizationUrl(f"{app_url.rstrip('/')}{_PAGES[page]}?{text}", page)


def _is_redirect_uri(uri: str) -> bool:
    """As the gateway has it: absolute, without user and fragment; https, or http on this machine."""
    parts = _REDIRECT.fullmatch(uri)
    if parts is None or len(uri) > 2048:
        return False
    scheme, host, port = parts.groups()
    if port is not None and not 1 <= int(port) <= 65535:
        return False
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return _is_dns_name(host) and (scheme == "https" or host.lower() == "localhost")
    return (address.version == 6) == host.startswith("[") and (scheme == "https" or address.is_loopback)


def _is_dns_name(host: str) -> bool:
    """A name that ends in a number would be taken for an address."""
    labels = host.split(".")
    last = labels[-1].lower()
    return len(host) <= 253 and all(map(_LABEL.fullmatch, labels)) and not last.isdigit() and not last.startswith("0x")
