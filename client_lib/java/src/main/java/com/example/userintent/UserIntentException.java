package com.example.userintent;

import com.example.userintent.v1.CreateUserIntentRequest;
import com.example.userintent.v1.ErrorReason;
import com.example.userintent.v1.UserIntentStatus;
import io.grpc.Status;
import java.time.Duration;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;

/**
 * A call failed. The class says what may be done, which is the gateway's {@code recovery}; the fields say the rest:
 *
 * <ul>
 *   <li>{@link InvalidRequestException}: correct the request
 *   <li>{@link RetryLaterException}: nothing was created; the same call later
 *   <li>{@link OutcomeUnknownException}: nobody knows (yet); the same request_id, never a new one
 *   <li>{@link IntentExistsException}: the intent is there already
 *   <li>{@link OperatorException}: the gateway must be repaired first
 *   <li>{@link StopException}: no repeat helps
 *   <li>this class itself: the gateway is newer than this library, and said something else; see {@link #getRecovery}
 * </ul>
 *
 * <p>No value of the request is in any field or text. What is serialised leaves the request (see
 * {@link UserIntentClient#repeat}) and the cause behind. Immutable; any thread may use it.
 */
public class UserIntentException extends RuntimeException {
  /**
   * {@link #getReason} of {@link UserIntentClient#waitForStatus}, this library's own word: the intent has another
   * status, which stays; see {@link #getFinalStatus}.
   */
  public static final String STATUS_FINAL = "STATUS_FINAL";

  private static final long serialVersionUID = 1;
  private static final String USER_INTENT_ID = "user_intent_id";

  /** What the call ended with. */
  private final Decoded decoded;

  /** Of the call. */
  private final String requestId;

  /** RPCs that the call made. */
  private final int tries;

  private final transient CreateUserIntentRequest request; // what travels has no business with personal data

  UserIntentException(Decoded decoded, String requestId, int tries, CreateUserIntentRequest request, Throwable cause) {
    super(text(decoded, requestId, tries), cause);
    this.decoded = decoded;
    this.requestId = requestId;
    this.tries = tries;
    this.request = request;
  }

  static UserIntentException of(
      Decoded decoded, String requestId, int tries, CreateUserIntentRequest request, Throwable cause) {
    if (decoded.reason.isEmpty() && decoded.isMaybeSent()) {
      return new OutcomeUnknownException(decoded, requestId, tries, request, cause);
    }
    switch (decoded.word("recovery")) {
      case "FIX_REQUEST":
      case "FIX_WITH_NEW_ID":
        return new InvalidRequestException(decoded, requestId, tries, request, cause);
      case "RETRY_SAME_ID":
        return new RetryLaterException(decoded, requestId, tries, request, cause);
      case "ASK_SAME_ID":
        return new OutcomeUnknownException(decoded, requestId, tries, request, cause);
      case "USE_EXISTING":
        return new IntentExistsException(decoded, requestId, tries, request, cause);
      case "WAIT_FOR_OPERATOR":
        return new OperatorException(decoded, requestId, tries, request, cause);
      case "STOP":
        return new StopException(decoded, requestId, tries, request, cause);
      default:
        return new UserIntentException(decoded, requestId, tries, request, cause);
    }
  }

  /**
   * The UserIntentException in what an asynchronous call failed with, which may be wrapped in a
   * {@link java.util.concurrent.CompletionException}, {@link java.util.concurrent.ExecutionException} or
   * {@link java.util.concurrent.CancellationException}.
   *
   * @param failure what was thrown, or given to a handler; null for none
   * @return the exception itself or the one among its causes; empty when there is none
   */
  public static Optional<UserIntentException> in(Throwable failure) {
    for (Throwable cause = failure; cause != null; cause = cause.getCause()) {
      if (cause instanceof UserIntentException) {
        return Optional.of((UserIntentException) cause);
      }
    }
    return Optional.empty();
  }

  /**
   * The code of the gRPC status.
   *
   * @return never OK
   */
  public final Status.Code getCode() {
    return decoded.code;
  }

  /**
   * The message of the gRPC status; {@link #getMessage} has it with everything else that a log wants.
   *
   * @return the text, empty when there is none
   */
  public final String getStatusMessage() {
    return decoded.message;
  }

  /**
   * Why the call failed, in the gateway's word.
   *
   * @return the name of an {@link ErrorReason} without its prefix, or one that only a newer gateway knows; empty when
   *     the error was made by something else than the gateway: a library, a proxy, a broken connection
   */
  public final String getReason() {
    return decoded.reason;
  }

  /**
   * {@link #getReason} for a {@code switch}; each value is explained there.
   *
   * @return ERROR_REASON_UNSPECIFIED when the error is not the gateway's; UNRECOGNIZED when this library does not know
   *     it
   */
  public final ErrorReason getErrorReason() {
    if (decoded.reason.isEmpty()) {
      return ErrorReason.ERROR_REASON_UNSPECIFIED;
    }
    try {
      return ErrorReason.valueOf("ERROR_REASON_" + decoded.reason);
    } catch (IllegalArgumentException newer) {
      return ErrorReason.UNRECOGNIZED;
    }
  }

  /**
   * Was a request for this id handed to Astra? The strongest answer over all tries of the id.
   *
   * @return {@code no}, {@code maybe} or {@code yes}; empty when the error is not the gateway's, unless this library
   *     knows that the call sent nothing: {@code no}. Always empty for a read, which creates nothing
   */
  public final String getSent() {
    return decoded.word("sent");
  }

  /**
   * What may be done, in the gateway's word.
   *
   * @return FIX_REQUEST, FIX_WITH_NEW_ID, RETRY_SAME_ID, ASK_SAME_ID, USE_EXISTING, WAIT_FOR_OPERATOR, STOP, or one
   *     that only a newer gateway knows; empty when the error is not the gateway's, unless the call sent nothing
   */
  public final String getRecovery() {
    return decoded.word("recovery");
  }

  /**
   * A creation may have happened, or may still happen: the gateway says so, or the error is not the gateway's (a
   * deadline, a cancellation, a broken connection). Only the same request_id is safe then:
   * {@link UserIntentClient#repeat}. False where this library knows that the call sent nothing: its deadline was over,
   * or it was cancelled, before it began, or its request cannot be sent. It speaks of this call, and of the one that it
   * repeated; what an earlier call with the same id said stands. False for a read, which creates nothing.
   *
   * @return whether it may
   */
  public final boolean isMaybeSent() {
    return decoded.isMaybeSent();
  }

  /**
   * Every field that breaks a rule.
   *
   * @return empty unless the reason is FIELD_INVALID
   */
  public final List<Violation> getViolations() {
    return Collections.unmodifiableList(decoded.violations);
  }

  /**
   * Attempts of the e-mail address that are used.
   *
   * @return empty where the gateway did not say
   */
  public final Optional<Attempts> getAttempts() {
    int low = Decoded.number(decoded.word("attempts_used_min"));
    int high = Decoded.number(decoded.word("attempts_used_max"));
    return low < 0 || high < 0 ? Optional.empty() : Optional.of(new Attempts(low, high));
  }

  /**
   * The User Intent that exists already, or that was to be read by this id.
   *
   * @return Astra's id; empty when there is none, or when another caller created it
   */
  public final Optional<String> getUserIntentId() {
    return optional(USER_INTENT_ID);
  }

  /**
   * The caller's request that stands in the way (EMAIL_UNRESOLVED). A request whose supersedes_request_id names it
   * replaces it, and spends another attempt.
   *
   * @return its request_id; empty when there is none, or when it is another caller's
   */
  public final Optional<String> getUnresolvedRequestId() {
    return optional("unresolved_request_id");
  }

  /**
   * Astra's own id of the exchange, for its support.
   *
   * @return empty where none came
   */
  public final Optional<String> getAstraRequestId() {
    return optional("astra_request_id");
  }

  /**
   * What Astra answered.
   *
   * @return the HTTP status; empty when it did not answer, or nobody told
   */
  public final OptionalInt getHttpStatus() {
    int status = Decoded.number(decoded.word("http_status"));
    return status < 0 ? OptionalInt.empty() : OptionalInt.of(status);
  }

  /**
   * The status that the intent has and will keep.
   *
   * @return empty unless the reason is {@link #STATUS_FINAL}
   */
  public final Optional<UserIntentStatus> getFinalStatus() {
    return decoded.reason.equals(STATUS_FINAL) ? optional("final_status").map(UserIntentStatus::valueOf)
                                               : Optional.empty();
  }

  /**
   * Does the answer come from the record, and not from this call's own exchange?
   *
   * @return whether it does
   */
  public final boolean isReplayed() {
    return decoded.word("replayed").equals("true");
  }

  /**
   * The delay after which a loop may repeat the same call. The library's own repeats are behind it then.
   *
   * @return empty: a loop may not
   */
  public final Optional<Duration> getRetryAfter() {
    return Optional.ofNullable(decoded.retryAfter);
  }

  /**
   * The request_id of the call, also when the library made it.
   *
   * @return the id as it was given; empty text for a read by the intent's id, and for a watch of more than one request
   */
  public final String getRequestId() {
    return requestId;
  }

  /**
   * RPCs that this call made, of a watch its streams.
   *
   * @return a count; 0 when the call ended before its first, so that nothing left this process
   */
  public final int getTries() {
    return tries;
  }

  /**
   * Why the library made no further try.
   *
   * @return the first reason that held, in the order of the values
   */
  public final NotRepeated getNotRepeated() {
    return decoded.notRepeated;
  }

  final boolean isRead() {
    return decoded.read;
  }

  /** Null when it was serialised, or is not of a creation. */
  final CreateUserIntentRequest request() {
    return request;
  }

  private Optional<String> optional(String name) {
    return Optional.of(decoded.word(name)).filter(text -> !text.isEmpty());
  }

  private static String text(Decoded decoded, String requestId, int tries) {
    StringBuilder text = new StringBuilder(decoded.code.name());
    text.append(decoded.reason.isEmpty() ? "" : " " + decoded.reason);
    text.append(": ").append(decoded.message.isEmpty() ? "no message" : decoded.message);
    for (Violation violation : decoded.violations) {
      text.append(" [").append(violation).append(']');
    }
    text.append(" (");
    if (!decoded.word("recovery").isEmpty()) {
      text.append(decoded.word("recovery")).append(", ");
    }
    if (decoded.isMaybeSent()) {
      text.append("maybe sent, ");
    }
    if (!decoded.read || !requestId.isEmpty()) {
      text.append("request_id ").append(requestId).append(", ");
    } else if (!decoded.word(USER_INTENT_ID).isEmpty()) {
      text.append("user_intent_id ").append(decoded.word(USER_INTENT_ID)).append(", ");
    }
    return text.append("tries ").append(tries).append(')').toString();
  }

  /** Serialised without its cause: gRPC's exceptions cannot be. */
  final Object writeReplace() {
    if (getCause() == null) {
      return this;
    }
    UserIntentException alone = of(decoded, requestId, tries, null, null);
    alone.setStackTrace(getStackTrace());
    return alone;
  }
}
