package com.example.userintent;

import com.example.userintent.v1.CreateUserIntentRequest;

/** ASK_SAME_ID, or no answer of the gateway at all: nobody knows (yet). The same request_id never creates twice. */
public final class OutcomeUnknownException extends UserIntentException {
  private static final long serialVersionUID = 1;

  OutcomeUnknownException(
      Decoded decoded, String requestId, int tries, CreateUserIntentRequest request, Throwable cause) {
    super(decoded, requestId, tries, request, cause);
  }
}
