"""What programs call of a client, so that their tests can bring a stand-in (userintent.testing)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional, Protocol

from ._core import CreateResult
from ._errors import UserIntentError
from ._watch import AsyncWatch, Watch
from .v1 import user_intent_service_pb2 as pb


class ClientInterface(Protocol):
    """Of Client and testing.FakeClient. It may gain methods."""

    def create(self, request: pb.CreateUserIntentRequest, *, request_id: Optional[str] = None,
               timeout: Optional[float] = None, max_tries: Optional[int] = None) -> CreateResult: ...

    def repeat(self, error: UserIntentError, *, timeout: Optional[float] = None,
               max_tries: Optional[int] = None) -> CreateResult: ...

    def get_creation(self, request_id: str, *, timeout: Optional[float] = None) -> pb.Creation: ...

    def get_user_intent(self, *, request_id: Optional[str] = None, user_intent_id: Optional[str] = None,
                        max_age: Optional[float] = None, allow_stale: bool = False, timeout: Optional[float] = None,
                        max_tries: Optional[int] = None) -> pb.GetUserIntentResponse: ...

    def watch(self, request_ids: Iterable[str] = (), *, resume_token: bytes = b"",
              timeout: Optional[float] = None) -> Watch: ...

    def wait_for_outcome(self, request_id: str, *, timeout: Optional[float] = None) -> pb.Creation: ...

    def wait_for_status(self, request_id: str, statuses: Iterable[int], *,
                        timeout: Optional[float] = None) -> pb.UserIntent: ...

    def get_authorization_url(self, *, request_id: Optional[str] = None, user_intent_id: Optional[str] = None,
                              redirect_uri: str, state: str, timeout: Optional[float] = None,
                              max_tries: Optional[int] = None) -> pb.GetAuthorizationUrlResponse: ...


class AsyncClientInterface(Protocol):
    """Of AsyncClient and testing.FakeAsyncClient. It may gain methods."""

    async def create(self, request: pb.CreateUserIntentRequest, *, request_id: Optional[str] = None,
                     timeout: Optional[float] = None, max_tries: Optional[int] = None) -> CreateResult: ...

    async def repeat(self, error: UserIntentError, *, timeout: Optional[float] = None,
                     max_tries: Optional[int] = None) -> CreateResult: ...

    async def get_creation(self, request_id: str, *, timeout: Optional[float] = None) -> pb.Creation: ...

    async def get_user_intent(self, *, request_id: Optional[str] = None, user_intent_id: Optional[str] = None,
                              max_age: Optional[float] = None, allow_stale: bool = False,
                              timeout: Optional[float] = None,
                              max_tries: Optional[int] = None) -> pb.GetUserIntentResponse: ...

    def watch(self, request_ids: Iterable[str] = (), *, resume_token: bytes = b"",
              timeout: Optional[float] = None) -> AsyncWatch: ...

    async def wait_for_outcome(self, request_id: str, *, timeout: Optional[float] = None) -> pb.Creation: ...

    async def wait_for_status(self, request_id: str, statuses: Iterable[int], *,
                              timeout: Optional[float] = None) -> pb.UserIntent: ...

    async def get_authorization_url(self, *, request_id: Optional[str] = None, user_intent_id: Optional[str] = None,
                                    redirect_uri: str, state: str, timeout: Optional[float] = None,
                                    max_tries: Optional[int] = None) -> pb.GetAuthorizationUrlResponse: ...
