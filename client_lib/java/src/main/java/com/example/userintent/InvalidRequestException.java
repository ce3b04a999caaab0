package com.example.userintent;

import com.example.userintent.v1.CreateUserIntentRequest;

/**
 * FIX_REQUEST, FIX_WITH_NEW_ID: correct the request; {@link #needsNewId} says whether the id may be kept. Also of a
 * request that cannot be sent at all, longer than 64 KiB or with text that is not Unicode: nothing was sent then.
 */
public final class InvalidRequestException extends UserIntentException {
  private static final long serialVersionUID = 1;

  InvalidRequestException(
      Decoded decoded, String requestId, int tries, CreateUserIntentRequest request, Throwable cause) {
    super(decoded, requestId, tries, request, cause);
  }

  /**
   * Must the corrected request have a new request_id?
   *
   * @return false: the id may be kept
   */
  public boolean needsNewId() {
    return getRecovery().equals("FIX_WITH_NEW_ID");
  }
}
