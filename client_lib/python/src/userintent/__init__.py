"""Client of the User Intent gateway.

Repeat the same request_id as often as you like: at most one User Intent is created for it, and every repeat gets the
same answer. A new request_id means a new creation, and one of the three attempts of that e-mail address, for ever.

    with Client("gateway.internal:50051", tls=Tls(ca_file, cert_file, key_file)) as client:
        created = client.create(CreateUserIntentRequest(email=..., ...))
"""

from ._authorization_url import AuthorizationUrl, authorization_url
from ._client import AsyncClient, AsyncPendingCreate, Client, PendingCreate
from ._core import CreateResult, new_request_id, service_config
from ._errors import (
    Attempts,
    ExistsError,
    InvalidRequestError,
    OperatorError,
    OutcomeUnknownError,
    RetryLaterError,
    StopError,
    UserIntentError,
    Violation,
)
from ._interface import AsyncClientInterface, ClientInterface
from ._redact import install as _install_redaction
from ._redact import redacted
from ._tls import Tls
from ._watch import AsyncWatch, Watch, WatchEvent, is_final
from .v1.user_intent_service_pb2 import (
    AttemptBudget,
    AuthorizationPage,
    CreateUserIntentRequest,
    CreateUserIntentResponse,
    Creation,
    CreationState,
    GetAuthorizationUrlResponse,
    GetUserIntentResponse,
    UserIntent,
    UserIntentStatus,
    VerificationType,
)

_install_redaction()

__all__ = [
    "AsyncClient",
    "AsyncClientInterface",
    "AsyncPendingCreate",
    "AsyncWatch",
    "AttemptBudget",
    "Attempts",
    "AuthorizationPage",
    "AuthorizationUrl",
    "Client",
    "ClientInterface",
    "CreateResult",
    "CreateUserIntentRequest",
    "CreateUserIntentResponse",
    "Creation",
    "CreationState",
    "ExistsError",
    "GetAuthorizationUrlResponse",
    "GetUserIntentResponse",
    "InvalidRequestError",
    "OperatorError",
    "OutcomeUnknownError",
    "PendingCreate",
    "RetryLaterError",
    "StopError",
    "Tls",
    "UserIntent",
    "UserIntentError",
    "UserIntentStatus",
    "VerificationType",
    "Violation",
    "Watch",
    "WatchEvent",
    "authorization_url",
    "is_final",
    "new_request_id",
    "redacted",
    "service_config",
]
