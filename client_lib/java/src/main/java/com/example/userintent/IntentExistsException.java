package com.example.userintent;

import com.example.userintent.v1.CreateUserIntentRequest;

/** USE_EXISTING: the person has an intent, {@link #getUserIntentId}. */
public final class IntentExistsException extends UserIntentException {
  private static final long serialVersionUID = 1;

  IntentExistsException(
      Decoded decoded, String requestId, int tries, CreateUserIntentRequest request, Throwable cause) {
    super(decoded, requestId, tries, request, cause);
  }
}
