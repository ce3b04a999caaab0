package com.example.userintent;

import com.example.userintent.v1.GetAuthorizationUrlRequest;
import com.example.userintent.v1.GetUserIntentRequest;
import java.util.Objects;

/**
 * Which of the caller's own intents {@link UserIntentClient#getUserIntent} and
 * {@link UserIntentClient#getAuthorizationUrl} read. Immutable; any thread may use it.
 */
public final class IntentKey {
  final String requestId; // empty: the intent's own id
  final String userIntentId;
  private final boolean ofRequest;

  private IntentKey(String requestId, String userIntentId, boolean ofRequest) {
    this.requestId = requestId;
    this.userIntentId = userIntentId;
    this.ofRequest = ofRequest;
  }

  /**
   * The intent that a request created.
   *
   * @param requestId the id of the request
   * @return the key
   */
  public static IntentKey ofRequest(String requestId) {
    return new IntentKey(Objects.requireNonNull(requestId, "requestId"), "", true);
  }

  /**
   * The intent with this id of Astra's, as in {@link CreateResult#getUserIntentId}.
   *
   * @param userIntentId Astra's id
   * @return the key
   */
  public static IntentKey ofIntent(String userIntentId) {
    return new IntentKey("", Objects.requireNonNull(userIntentId, "userIntentId"), false);
  }

  GetUserIntentRequest.Builder request() {
    GetUserIntentRequest.Builder request = GetUserIntentRequest.newBuilder();
    return ofRequest ? request.setRequestId(requestId) : request.setUserIntentId(userIntentId);
  }

  GetAuthorizationUrlRequest.Builder authorization() {
    GetAuthorizationUrlRequest.Builder request = GetAuthorizationUrlRequest.newBuilder();
    return ofRequest ? request.setRequestId(requestId) : request.setUserIntentId(userIntentId);
  }

  @Override
  public String toString() {
    return ofRequest ? "request_id " + requestId : "user_intent_id " + userIntentId;
  }
}
