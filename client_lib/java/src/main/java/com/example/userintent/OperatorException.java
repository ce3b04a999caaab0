package com.example.userintent;

import com.example.userintent.v1.CreateUserIntentRequest;

/** WAIT_FOR_OPERATOR: the gateway must be repaired first; then the same id. */
public final class OperatorException extends UserIntentException {
  private static final long serialVersionUID = 1;

  OperatorException(Decoded decoded, String requestId, int tries, CreateUserIntentRequest request, Throwable cause) {
    super(decoded, requestId, tries, request, cause);
  }
}
