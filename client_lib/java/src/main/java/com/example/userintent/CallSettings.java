package com.example.userintent;

import com.google.protobuf.ByteString;
import java.time.Duration;
import java.util.Objects;

/**
 * Settings of one call that differ from the client's: {@code CallSettings.defaults().withTimeout(ofSeconds(5))}.
 * Immutable; any thread may use it.
 */
public final class CallSettings {
  private static final CallSettings DEFAULTS = new CallSettings(null, 0, "", false, null, false, ByteString.EMPTY);

  final Duration timeout; // null: the client's
  final int maxTries; // 0: the client's
  final String requestId; // empty: the request's own
  final boolean maybeBefore; // it repeats a call of which nobody knows whether it was sent
  final Duration maxAge; // null: none
  final boolean allowStale;
  final ByteString resumeToken; // of a watch; empty: none

  private CallSettings(Duration timeout, int maxTries, String requestId, boolean maybeBefore, Duration maxAge,
      boolean allowStale, ByteString resumeToken) {
    this.timeout = timeout;
    this.maxTries = maxTries;
    this.requestId = requestId;
    this.maybeBefore = maybeBefore;
    this.maxAge = maxAge;
    this.allowStale = allowStale;
    this.resumeToken = resumeToken;
  }

  CallSettings repeating(UserIntentException error) {
    return new CallSettings(
        timeout, maxTries, error.getRequestId(), error.isMaybeSent(), maxAge, allowStale, resumeToken);
  }

  /**
   * The client's own settings.
   *
   * @return where to start from
   */
  public static CallSettings defaults() {
    return DEFAULTS;
  }

  /**
   * How long the whole call may take, its repeats included. A nearer deadline of the current {@link io.grpc.Context}
   * goes before it.
   *
   * @param timeout above zero
   * @return a copy with this setting
   */
  public CallSettings withTimeout(Duration timeout) {
    return new CallSettings(positive(timeout), maxTries, requestId, maybeBefore, maxAge, allowStale, resumeToken);
  }

  /**
   * How many RPCs the call may make.
   *
   * @param maxTries at least 1, which switches automatic repeats off
   * @return a copy with this setting
   */
  public CallSettings withMaxTries(int maxTries) {
    return new CallSettings(timeout, atLeastOne(maxTries), requestId, maybeBefore, maxAge, allowStale, resumeToken);
  }

  /**
   * The request_id of the call, whatever the request says.
   *
   * @param requestId an id that you keep, such as one of {@link UserIntentClient#newRequestId}; empty text: that of the
   *     request, else a new one
   * @return a copy with this setting
   */
  public CallSettings withRequestId(String requestId) {
    return new CallSettings(timeout, maxTries, Objects.requireNonNull(requestId, "requestId"), maybeBefore, maxAge,
        allowStale, resumeToken);
  }

  /**
   * For {@link UserIntentClient#getUserIntent}: an answer from the gateway's record may be so old. Without it, or with
   * zero, Astra is asked.
   *
   * @param maxAge not negative, which the gateway checks
   * @return a copy with this setting
   */
  public CallSettings withMaxAge(Duration maxAge) {
    return new CallSettings(
        timeout, maxTries, requestId, maybeBefore, Objects.requireNonNull(maxAge, "maxAge"), allowStale, resumeToken);
  }

  /**
   * For {@link UserIntentClient#getUserIntent}: when Astra cannot be asked, the answer is the recorded state, with
   * {@code stale} true, instead of an error.
   *
   * @return a copy with this setting
   */
  public CallSettings withAllowStale() {
    return new CallSettings(timeout, maxTries, requestId, maybeBefore, maxAge, true, resumeToken);
  }

  /**
   * For {@link UserIntentClient#watch}: go on where an earlier watch stood.
   *
   * @param resumeToken of a {@link WatchEvent}, or of a {@link Watch}; empty: from the beginning
   * @return a copy with this setting
   */
  public CallSettings withResumeToken(ByteString resumeToken) {
    return new CallSettings(timeout, maxTries, requestId, maybeBefore, maxAge, allowStale,
        Objects.requireNonNull(resumeToken, "resumeToken"));
  }

  static Duration positive(Duration timeout) {
    if (timeout.isZero() || timeout.isNegative()) {
      throw new IllegalArgumentException("timeout must be above zero");
    }
    return timeout;
  }

  static int atLeastOne(int maxTries) {
    if (maxTries < 1) {
      throw new IllegalArgumentException("maxTries must be at least 1");
    }
    return maxTries;
  }
}
