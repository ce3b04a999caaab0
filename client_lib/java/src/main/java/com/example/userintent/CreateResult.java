package com.example.userintent;

import com.example.userintent.v1.AttemptBudget;
import com.example.userintent.v1.CreateUserIntentResponse;
import com.example.userintent.v1.UserIntent;
import java.util.Optional;

/** The answer to a creation. Immutable; any thread may use it. */
public final class CreateResult {
  private final String requestId;
  private final int tries;
  private final CreateUserIntentResponse response;

  CreateResult(String requestId, int tries, CreateUserIntentResponse response) {
    this.requestId = requestId;
    this.tries = tries;
    this.response = response;
  }

  /**
   * The id that was used: the caller's as it was given, or a new one. Keep it with the person's record.
   *
   * @return the request_id
   */
  public String getRequestId() {
    return requestId;
  }

  /**
   * RPCs that this call made.
   *
   * @return at least 1
   */
  public int getTries() {
    return tries;
  }

  /**
   * What the gateway answered.
   *
   * @return the whole message
   */
  public CreateUserIntentResponse getResponse() {
    return response;
  }

  /**
   * The User Intent. That it exists says nothing about the identity check, which runs later at Astra.
   *
   * @return empty for validate_only
   */
  public Optional<UserIntent> getUserIntent() {
    return response.hasUserIntent() ? Optional.of(response.getUserIntent()) : Optional.empty();
  }

  /**
   * Astra's id of the User Intent.
   *
   * @return empty text for validate_only
   */
  public String getUserIntentId() {
    return response.getUserIntent().getId();
  }

  /**
   * False for the one call whose POST created the intent, true for its repeats.
   *
   * @return whether the answer comes from the record
   */
  public boolean isReplayed() {
    return response.getReplayed();
  }

  /**
   * Attempts of the e-mail address, as of this answer.
   *
   * @return used_min, used_max and the limit
   */
  public AttemptBudget getAttempts() {
    return response.getAttempts();
  }

  /**
   * Astra's own id of the exchange, for its support.
   *
   * @return empty text where none came
   */
  public String getAstraRequestId() {
    return response.getAstraRequestId();
  }

  @Override
  public String toString() {
    return "CreateResult(request_id " + requestId + ", tries " + tries + ", " + Redacted.toString(response) + ")";
  }
}
