package com.example.conformance;

import com.example.userintent.AuthorizationUrl;
import com.example.userintent.CreateResult;
import com.example.userintent.Redacted;
import com.example.userintent.UserIntentException;
import com.example.userintent.Violation;
import com.example.userintent.WatchEvent;
import com.example.userintent.v1.Creation;
import com.example.userintent.v1.GetAuthorizationUrlResponse;
import com.example.userintent.v1.GetUserIntentResponse;
import com.example.userintent.v1.UserIntent;
import com.google.protobuf.Timestamp;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Supplier;

/**
 * How a call of the library ended: the fields that ../README.md names, and the ways in which it becomes text in a log.
 */
final class Outcome {
  final Map<String, Object> fields = new HashMap<>(Map.of("ok", false, "code", "", "reason", "", "sent", "", "recovery",
      "", "maybe_sent", false, "replayed", false, "violations", List.of(), "user_intent_id", "", "state", ""));
  final List<String> texts = new ArrayList<>();
  UserIntentException error;

  private Outcome() {
    fields.putAll(Map.of("used_min", 0L, "used_max", 0L, "limit", 0L, "http_status", 0L, "tries", 0L, "retry_after_ms",
        -1L, "unresolved_request_id", "", "request_id", ""));
    fields.putAll(Map.of("url", "", "page", "", "final_status", ""));
    fields.putAll(Map.of("not_repeated", "", "status", "", "user_id", "", "verification_type", "", "status_time", "",
        "read_time", "", "stale", false));
  }

  /**
   * Makes the call, whose time began at `started` (System.nanoTime). Whatever it throws that is no UserIntentException
   * goes on.
   */
  static Outcome of(long started, Supplier<Outcome> call) {
    Outcome outcome;
    try {
      outcome = call.get();
    } catch (RuntimeException failure) {
      outcome = failed(UserIntentException.in(failure).orElseThrow(() -> failure));
      outcome.texts.add(stackTrace(failure));
    }
    outcome.fields.put("elapsed_ms", (System.nanoTime() - started) / 1_000_000);
    return outcome;
  }

  static Outcome created(CreateResult result) {
    Outcome outcome = new Outcome();
    outcome.fields.putAll(Map.of("ok", true, "code", "OK", "replayed", result.isReplayed(), "used_min",
        (long) result.getAttempts().getUsedMin(), "used_max", (long) result.getAttempts().getUsedMax(), "limit",
        (long) result.getAttempts().getLimit(), "request_id", result.getRequestId(), "tries",
        (long) result.getTries()));
    outcome.intent(result.getResponse().getUserIntent());
    outcome.texts.add(result.toString());
    outcome.texts.add(result.getResponse().toString());
    return outcome;
  }

  static Outcome got(String requestId, Creation creation) {
    Outcome outcome = new Outcome();
    outcome.fields.putAll(Map.of("ok", true, "code", "OK", "reason", creation.getError().getReason(), "used_min",
        (long) creation.getAttempts().getUsedMin(), "used_max", (long) creation.getAttempts().getUsedMax(), "limit",
        (long) creation.getAttempts().getLimit(), "request_id", requestId, "state",
        name(creation.getState(), "CREATION_STATE_")));
    outcome.intent(creation.getUserIntent());
    outcome.texts.add(Redacted.toString(creation));
    outcome.texts.add(creation.toString());
    return outcome;
  }

  static Outcome read(String requestId, GetUserIntentResponse response) {
    Outcome outcome = new Outcome();
    outcome.intent(response.getUserIntent());
    outcome.fields.putAll(Map.of("ok", true, "code", "OK", "request_id", requestId, "stale", response.getStale(),
        "read_time", response.hasReadTime() ? instant(response.getReadTime()) : ""));
    outcome.texts.add(Redacted.toString(response));
    outcome.texts.add(response.toString());
    return outcome;
  }

  static Outcome waited(String requestId, UserIntent intent) {
    Outcome outcome = new Outcome();
    outcome.intent(intent);
    outcome.fields.putAll(Map.of("ok", true, "code", "OK", "request_id", requestId));
    outcome.texts.add(Redacted.toString(intent));
    return outcome;
  }

  static Outcome linked(String requestId, GetAuthorizationUrlResponse response) {
    Outcome outcome = waited(requestId, response.getUserIntent());
    outcome.fields.putAll(Map.of("url", response.getUrl(), "page", name(response.getPage(), "AUTHORIZATION_PAGE_")));
    outcome.texts.add(Redacted.toString(response));
    return outcome;
  }

  static Outcome made(UserIntent intent, AuthorizationUrl made) {
    Outcome outcome = waited("", intent);
    outcome.fields.putAll(Map.of("url", made.getUrl(), "page", name(made.getPage(), "AUTHORIZATION_PAGE_")));
    outcome.texts.add(made.toString());
    return outcome;
  }

  /** What an event of a watch tells. */
  static Outcome told(WatchEvent event) {
    Creation creation = event.getCreation();
    Outcome outcome = new Outcome();
    if (creation.hasUserIntent()) {
      outcome.intent(creation.getUserIntent());
    }
    outcome.fields.putAll(
        Map.of("event", event.getKind().name().toLowerCase(Locale.ROOT), "token", !event.getResumeToken().isEmpty(),
            "request_id", creation.getRequestId(), "reason", creation.getError().getReason(), "state",
            event.getKind() == WatchEvent.Kind.CHANGED ? name(creation.getState(), "CREATION_STATE_") : ""));
    outcome.texts.addAll(List.of(event.toString(), Redacted.toString(creation)));
    return outcome;
  }

  private static String name(Enum<?> value, String prefix) {
    return value.name().substring(prefix.length());
  }

  private void intent(UserIntent intent) {
    fields.putAll(Map.of("user_intent_id", intent.getId(), "user_id", intent.getUserId(), "status",
        name(intent.getStatus(), "USER_INTENT_STATUS_"), "verification_type",
        name(intent.getVerificationType(), "VERIFICATION_TYPE_"), "status_time",
        intent.hasStatusTime() ? instant(intent.getStatusTime()) : ""));
  }

  private static String instant(Timestamp when) {
    return String.format("%d.%09d", when.getSeconds(), when.getNanos());
  }

  private static Outcome failed(UserIntentException error) {
    Outcome outcome = new Outcome();
    outcome.error = error;
    List<String> violations = new ArrayList<>();
    for (Violation violation : error.getViolations()) {
      violations.add(violation.getField());
    }
    outcome.fields.putAll(Map.of("code", error.getCode().name(), "reason", error.getReason(), "sent", error.getSent(),
        "recovery", error.getRecovery(), "maybe_sent", error.isMaybeSent(), "replayed", error.isReplayed(),
        "violations", violations, "user_intent_id", error.getUserIntentId().orElse(""), "unresolved_request_id",
        error.getUnresolvedRequestId().orElse("")));
    error.getAttempts().ifPresent(attempts
        -> outcome.fields.putAll(
            Map.of("used_min", (long) attempts.getUsedMin(), "used_max", (long) attempts.getUsedMax())));
    outcome.fields.putAll(
        Map.of("http_status", (long) error.getHttpStatus().orElse(0), "request_id", error.getRequestId(), "tries",
            (long) error.getTries(), "retry_after_ms", error.getRetryAfter().map(Duration::toMillis).orElse(-1L)));
    error.getFinalStatus().ifPresent(status -> outcome.fields.put("final_status", name(status, "USER_INTENT_STATUS_")));
    outcome.fields.put("not_repeated", error.getNotRepeated().name().toLowerCase(Locale.ROOT));
    outcome.texts.add(error.toString());
    outcome.texts.add(stackTrace(error));
    return outcome;
  }

  private static String stackTrace(Throwable error) {
    StringWriter text = new StringWriter();
    error.printStackTrace(new PrintWriter(text));
    return text.toString();
  }
}
