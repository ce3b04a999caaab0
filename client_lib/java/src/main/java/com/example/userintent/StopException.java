package com.example.userintent;

import com.example.userintent.v1.CreateUserIntentRequest;

/** STOP: no repeat helps. */
public final class StopException extends UserIntentException {
  private static final long serialVersionUID = 1;

  StopException(Decoded decoded, String requestId, int tries, CreateUserIntentRequest request, Throwable cause) {
    super(decoded, requestId, tries, request, cause);
  }
}
