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
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** What one failed RPC says. What cannot be read counts as absent. Immutable. */
final class Decoded implements Serializable {
  private static final long serialVersionUID = 1;
  private static final String DOMAIN = "userintent.v1"; // another one is someone else's, a proxy's say
  private static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);
  private static final Metadata.Key<String> PUSHBACK =
      Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);
  private static final long MAX_DELAY_SECONDS = Integer.MAX_VALUE; // more is for ever, and overflows nothing

  final Status.Code code;
  final String message;
  final String reason;
  final HashMap<String, String> metadata;
  final ArrayList<Violation> violations;
  final Duration retryAfter; // null: a loop may not repeat

  private Decoded(Status.Code code, String message, String reason, Map<String, String> metadata,
      List<Violation> violations, Duration retryAfter) {
    this.code = code;
    this.message = message == null ? "" : message;
    this.reason = reason;
    this.metadata = new HashMap<>(metadata);
    this.violations = new ArrayList<>(violations);
    this.retryAfter = retryAfter;
  }

  /** Made here and not by the gateway, so nobody knows what happened there. */
  static Decoded local(Status.Code code, String message) {
    return new Decoded(code, message, "", Map.of(), List.of(), null);
  }

  /** Made here, of a call for which nothing left this process. */
  static Decoded notSent(Status.Code code, String message) {
    return new Decoded(code, message, "", Map.of("sent", "no", "recovery", "RETRY_SAME_ID"), List.of(), null);
  }

  static Decoded malformed() {
    return malformed("a text in it is not Unicode");
  }

  /** In the words of the gateway for bytes that are no message: such a request never leaves this process. */
  static Decoded malformed(String problem) {
    return new Decoded(Status.Code.INVALID_ARGUMENT, "The request cannot be sent: " + problem + ".",
        "MALFORMED_REQUEST", Map.of("sent", "no", "recovery", "FIX_REQUEST"), List.of(), null);
  }

  /** The gateway says so, or nobody knows. */
  boolean isMaybeSent() {
    return word("sent").equals("maybe") || reason.isEmpty() && !word("sent").equals("no");
  }

  static Decoded of(Status status, Metadata trailers) {
    ErrorInfo info = ErrorInfo.getDefaultInstance();
    Duration delay = null;
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
      return new Decoded(status.getCode(), status.getDescription(), "", Map.of(), List.of(), null);
    }
    return new Decoded(status.getCode(), status.getDescription(), info.getReason(), info.getMetadataMap(), violations,
        afterPushback(delay, trailers));
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

  /** As in gRPC's own retries, a pushback that is negative or cannot be read forbids repeats. */
  private static Duration afterPushback(Duration delay, Metadata trailers) {
    Iterable<String> values = trailers == null ? null : trailers.getAll(PUSHBACK);
    if (delay == null || values == null) {
      return delay;
    }
    for (String text : values) {
      int millis = number(text);
      if (millis < 0) {
        return null;
      }
      Duration pushback = Duration.ofMillis(millis);
      delay = pushback.compareTo(delay) > 0 ? pushback : delay;
    }
    return delay;
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
