package com.example.userintent;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import java.io.Serializable;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** What one failed RPC says. What cannot be read counts as absent. Immutable. */
final class Decoded implements Serializable {
  private static final long serialVersionUID = 1;
  private static final String DOMAIN = "userintent.v1"; // another one is someone else's, a proxy's say
  private static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);
  private static final Metadata.Key<String> PUSHBACK =
      Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);
  private static final Set<Status.Code> SAME_CALL_LATER =
      EnumSet.of(Status.Code.UNAVAILABLE, Status.Code.DEADLINE_EXCEEDED, Status.Code.CANCELLED);
  private static final long FIRST_PAUSE_MS = 200;
  private static final long LONGEST_PAUSE_MS = 5000;
  private static final long MAX_DELAY_SECONDS = Integer.MAX_VALUE; // more is for ever, and overflows nothing

  final Status.Code code;
  final String message;
  final String reason;
  final HashMap<String, String> metadata;
  final ArrayList<Violation> violations;
  final Duration retryAfter; // null: a loop may not repeat
  final boolean read; // of a read, which creates nothing
  final NotRepeated notRepeated; // null: a repeat follows
  private final int pushbackMs; // below 0: no repeat

  private Decoded(Status.Code code, String message, String reason, Map<String, String> metadata,
      List<Violation> violations, Duration retryAfter, int pushbackMs) {
    this(code, message, reason, metadata, violations, retryAfter, pushbackMs, false, null);
  }

  private Decoded(Status.Code code, String message, String reason, Map<String, String> metadata,
      List<Violation> violations, Duration retryAfter, int pushbackMs, boolean read, NotRepeated notRepeated) {
    this.code = code;
    this.message = message == null ? "" : message;
    this.reason = reason;
    this.metadata = new HashMap<>(metadata);
    this.violations = new ArrayList<>(violations);
    this.retryAfter = retryAfter;
    this.pushbackMs = pushbackMs;
    this.read = read;
    this.notRepeated = notRepeated;
  }

  /** Made here and not by the gateway, so nobody knows what happened there. */
  static Decoded local(Status.Code code, String message) {
    return new Decoded(code, message, "", Map.of(), List.of(), null, 0);
  }

  /** Made here, of a call for which nothing left this process. */
  static Decoded notSent(Status.Code code, String message) {
    return new Decoded(code, message, "", Map.of("sent", "no", "recovery", "RETRY_SAME_ID"), List.of(), null, 0);
  }

  /** As the gateway would have made it; with an empty reason, as something else. */
  static Decoded made(Status.Code code, String reason, Map<String, String> words) {
    return new Decoded(code, "", reason, words, List.of(), null, 0);
  }

  /** The same with a message: what this library says in the gateway's words. */
  static Decoded made(Status.Code code, String message, String reason, Map<String, String> words) {
    return made(code, message, reason, words, List.of());
  }

  static Decoded made(
      Status.Code code, String message, String reason, Map<String, String> words, List<Violation> violations) {
    return new Decoded(code, message, reason, words, violations, null, 0);
  }

  static Decoded malformed() {
    return malformed("a text in it is not Unicode");
  }

  /** In the words of the gateway for bytes that are no message: such a request never leaves this process. */
  static Decoded malformed(String problem) {
    return new Decoded(Status.Code.INVALID_ARGUMENT, "The request cannot be sent: " + problem + ".",
        "MALFORMED_REQUEST", Map.of("sent", "no", "recovery", "FIX_REQUEST"), List.of(), null, 0);
  }

  /** The same as an error of a read: without `sent`, and repeated after UNAVAILABLE that is not the gateway's. */
  Decoded ofRead(String userIntentId, int tries) {
    Map<String, String> words = new HashMap<>(metadata);
    words.remove("sent");
    if (!userIntentId.isEmpty()) {
      words.putIfAbsent("user_intent_id", userIntentId);
    }
    Duration delay = retryAfter;
    if (reason.isEmpty() && SAME_CALL_LATER.contains(code)) {
      words.putIfAbsent("recovery", "RETRY_SAME_ID");
      if (code == Status.Code.UNAVAILABLE && delay == null && pushbackMs >= 0) {
        delay = Duration.ofMillis(Math.max(pauseAfter(tries), pushbackMs));
      }
    }
    return new Decoded(code, message, reason, words, violations, delay, pushbackMs, true, notRepeated);
  }

  /** Milliseconds before the repeat of a read whose error names no delay. */
  static long pauseAfter(int tries) {
    return Math.min(FIRST_PAUSE_MS << Math.min(Math.max(tries - 1, 0), 10), LONGEST_PAUSE_MS);
  }

  /** The same as the error with which a call ends. */
  Decoded last(NotRepeated why) {
    return new Decoded(code, message, reason, metadata, violations, retryAfter, pushbackMs, read, why);
  }

  /** The gateway says so, or nobody knows. */
  boolean isMaybeSent() {
    return !read && (word("sent").equals("maybe") || reason.isEmpty() && !word("sent").equals("no"));
  }

  static Decoded of(Status status, Metadata trailers) {
    ErrorInfo info = ErrorInfo.getDefaultInstance();
    Duration delay = null;
    int pushback = pushback(trailers);
    List<Violation> violations = new ArrayList<>();
    try {
      for (Any detail : details(trailers)) {
        if (detail.is(ErrorInfo.class)) {
          ErrorInfo found = detail.unpack(ErrorInfo.class);
          if (found.getDomain().equals(DOMAIN) && !found.getReason().isEmpty()) {
            info = found;
          }
        } else if (detail.is(RetryInfo.class)) {
          delay = duration(detail.unpack(RetryInfo.class).getRetryDelay());
        } else if (detail.is(BadRequest.class)) {
          for (BadRequest.FieldViolation violation : detail.unpack(BadRequest.class).getFieldViolationsList()) {
            violations.add(new Violation(violation.getField(), violation.getDescription()));
          }
        }
      }
    } catch (InvalidProtocolBufferException damaged) { // not even half of it is believed
      return new Decoded(status.getCode(), status.getDescription(), "", Map.of(), List.of(), null, pushback);
    }
    if (delay != null) {
      Duration asked = Duration.ofMillis(Math.max(pushback, 0));
      delay = pushback < 0 ? null : asked.compareTo(delay) > 0 ? asked : delay;
    }
    return new Decoded(status.getCode(), status.getDescription(), info.getReason(), info.getMetadataMap(), violations,
        delay, pushback);
  }

  private static List<Any> details(Metadata trailers) throws InvalidProtocolBufferException {
    Iterable<byte[]> values = trailers == null ? null : trailers.getAll(DETAILS);
    List<byte[]> found = new ArrayList<>();
    if (values != null) {
      values.forEach(found::add);
    }
    // More than one would be somebody's mistake: whose words to believe, then?
    return found.size() == 1 ? com.google.rpc.Status.parseFrom(found.get(0)).getDetailsList() : Collections.emptyList();
  }

  private static Duration duration(com.google.protobuf.Duration delay) {
    if (delay.getSeconds() < 0 || delay.getNanos() < 0) {
      return Duration.ZERO;
    }
    return Duration.ofSeconds(Math.min(delay.getSeconds(), MAX_DELAY_SECONDS), Math.min(delay.getNanos(), 999_999_999));
  }

  /** As in gRPC's own retries, a pushback that is negative or cannot be read forbids repeats: below 0. */
  private static int pushback(Metadata trailers) {
    Iterable<String> values = trailers == null ? null : trailers.getAll(PUSHBACK);
    int longest = 0;
    if (values != null) {
      for (String text : values) {
        int millis = number(text);
        if (millis < 0) {
          return -1;
        }
        longest = Math.max(longest, millis);
      }
    }
    return longest;
  }

  /** The number that the text is, digits only; -1 when it is none. */
  static int number(String text) {
    if (text == null || text.isEmpty() || text.length() > 10 || !text.chars().allMatch(c -> c >= '0' && c <= '9')) {
      return -1;
    }
    long value = Long.parseLong(text);
    return value > Integer.MAX_VALUE ? -1 : (int) value;
  }

  String word(String name) {
    return metadata.getOrDefault(name, "");
  }
}
