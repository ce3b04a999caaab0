package com.example.userintent;

import com.example.userintent.v1.CreateUserIntentRequest;

/**
 * RETRY_SAME_ID: nothing was created; the same call may succeed later. The library has tried already. Also of a read
 * that got no answer of the gateway.
 */
public final class RetryLaterException extends UserIntentException {
  private static final long serialVersionUID = 1;

  RetryLaterException(Decoded decoded, String requestId, int tries, CreateUserIntentRequest request, Throwable cause) {
    super(decoded, requestId, tries, request, cause);
  }
}
