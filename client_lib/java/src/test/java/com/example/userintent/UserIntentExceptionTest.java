package com.example.userintent;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.example.userintent.v1.ErrorReason;
import com.google.rpc.ErrorInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import org.junit.jupiter.api.Test;

class UserIntentExceptionTest {
  private static UserIntentException of(StatusRuntimeException failure) {
    return UserIntentException.of(
        Decoded.of(failure.getStatus(), failure.getTrailers()), "the-id", 2, FakeGateway.person(), failure);
  }

  private static UserIntentException of(ErrorInfo info) {
    return of(FakeGateway.error(Status.Code.FAILED_PRECONDITION, new Metadata(), info));
  }

  @Test
  void theClassIsTheRecovery() {
    Map.of("FIX_REQUEST", InvalidRequestException.class, "FIX_WITH_NEW_ID", InvalidRequestException.class,
           "RETRY_SAME_ID", RetryLaterException.class, "ASK_SAME_ID", OutcomeUnknownException.class, "USE_EXISTING",
           IntentExistsException.class, "WAIT_FOR_OPERATOR", OperatorException.class, "STOP", StopException.class,
           "SOMETHING_NEW", UserIntentException.class)
        .forEach((recovery, kind) -> {
          UserIntentException error = of(FakeGateway.info("ANY", "recovery", recovery, "sent", "no"));
          assertSame(kind, error.getClass());
          assertEquals(recovery, error.getRecovery());
          assertFalse(error.isMaybeSent());
        });
    assertSame(OutcomeUnknownException.class, of(Status.UNAVAILABLE.asRuntimeException()).getClass());
    assertTrue(((InvalidRequestException) of(FakeGateway.info("X", "recovery", "FIX_WITH_NEW_ID"))).needsNewId());
    assertFalse(((InvalidRequestException) of(FakeGateway.info("X", "recovery", "FIX_REQUEST"))).needsNewId());
  }

  @Test
  void everyWordIsRead() {
    UserIntentException error = of(FakeGateway.everything());
    assertEquals(Status.Code.FAILED_PRECONDITION, error.getCode());
    assertEquals("told", error.getStatusMessage());
    assertEquals(ErrorReason.ERROR_REASON_PERSON_EXISTS, error.getErrorReason());
    assertEquals("yes", error.getSent());
    assertEquals(new Attempts(1, 2), error.getAttempts().orElseThrow());
    assertEquals(Optional.of("intent-1"), error.getUserIntentId());
    assertEquals(Optional.of("id-2"), error.getUnresolvedRequestId());
    assertEquals(Optional.of("astra-1"), error.getAstraRequestId());
    assertEquals(OptionalInt.of(409), error.getHttpStatus());
    assertTrue(error.isReplayed());
    assertEquals("the-id", error.getRequestId());
    assertEquals(2, error.getTries());
  }

  @Test
  void whatIsNotSaidIsAbsent() {
    UserIntentException error = of(FakeGateway.info("SOMETHING_NEWER", "attempts_used_min", "x", "http_status", "-4"));
    assertEquals(ErrorReason.UNRECOGNIZED, error.getErrorReason());
    assertEquals("SOMETHING_NEWER", error.getReason());
    assertEquals(Optional.empty(), error.getAttempts());
    assertEquals(OptionalInt.empty(), error.getHttpStatus());
    assertEquals(Optional.empty(), error.getUserIntentId());
    assertFalse(error.isReplayed());
    assertEquals(ErrorReason.ERROR_REASON_UNSPECIFIED, of(Status.ABORTED.asRuntimeException()).getErrorReason());
    assertEquals(-1, Decoded.number("2147483648"));
    assertEquals(-1, Decoded.number("99999999999999999999"));
    assertEquals(-1, Decoded.number("٤"));
    assertEquals(Integer.MAX_VALUE, Decoded.number("2147483647"));
  }

  @Test
  void violationsAreNamed() {
    UserIntentException error = of(FakeGateway.fieldInvalid());
    assertEquals(List.of(new Violation("email", "a rule"), new Violation("state", "a rule")), error.getViolations());
    assertTrue(error.getMessage().contains("[email: a rule] [state: a rule]"), error.getMessage());
  }

  @Test
  void maybeSent() {
    assertTrue(of(FakeGateway.info("OUTCOME_UNKNOWN", "sent", "maybe", "recovery", "ASK_SAME_ID")).isMaybeSent());
    assertTrue(of(Status.INVALID_ARGUMENT.asRuntimeException()).isMaybeSent());
    assertTrue(of(FakeGateway.info("RBAC").toBuilder().setDomain("proxy.example.com").putMetadata("sent", "no").build())
                   .isMaybeSent());
  }

  @Test
  void detailsThatCannotBeReadCountAsNone() {
    Metadata garbage = new Metadata();
    garbage.put(FakeGateway.DETAILS, new byte[] {-1, -1, -1, -1});
    Metadata twice = new Metadata();
    FakeGateway.error(Status.Code.INTERNAL, twice, FakeGateway.info("A", "recovery", "STOP"));
    FakeGateway.error(Status.Code.INTERNAL, twice, FakeGateway.info("B", "recovery", "STOP"));
    Metadata half = new Metadata(); // RetryInfo that can be read, before ErrorInfo that cannot
    com.google.rpc.Status damaged =
        com.google.rpc.Status.newBuilder()
            .addDetails(com.google.protobuf.Any.pack(FakeGateway.retry(5)))
            .addDetails(com.google.protobuf.Any.newBuilder()
                            .setTypeUrl("type.googleapis.com/google.rpc.ErrorInfo")
                            .setValue(com.google.protobuf.ByteString.copyFrom(new byte[] {-1, -1})))
            .build();
    half.put(FakeGateway.DETAILS, damaged.toByteArray());
    for (Metadata trailers : List.of(garbage, twice, half)) {
      UserIntentException error = of(Status.INTERNAL.asRuntimeException(trailers));
      assertSame(OutcomeUnknownException.class, error.getClass());
      assertEquals("", error.getReason());
      assertEquals(Optional.empty(), error.getRetryAfter());
    }
  }

  @Test
  void oddDelays() {
    com.google.rpc.RetryInfo past = com.google.rpc.RetryInfo.newBuilder()
                                        .setRetryDelay(com.google.protobuf.Duration.newBuilder().setSeconds(-5))
                                        .build();
    com.google.rpc.RetryInfo never =
        com.google.rpc.RetryInfo.newBuilder()
            .setRetryDelay(com.google.protobuf.Duration.newBuilder().setSeconds(Long.MAX_VALUE))
            .build();
    assertEquals(
        Duration.ZERO, of(FakeGateway.error(Status.Code.ABORTED, new Metadata(), past)).getRetryAfter().orElseThrow());
    assertEquals(Integer.MAX_VALUE,
        of(FakeGateway.error(Status.Code.ABORTED, new Metadata(), never)).getRetryAfter().orElseThrow().getSeconds());
  }

  @Test
  void serialisedItLeavesTheRequestBehind() throws Exception {
    UserIntentException error = of(FakeGateway.everything());
    assertNotNull(error.request());
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
      out.writeObject(error);
    }
    String text = bytes.toString(StandardCharsets.ISO_8859_1);
    for (String word : List.of("zorblatt", "Vexmoor", "8259", "canary")) {
      assertFalse(text.contains(word), word);
    }
    UserIntentException back;
    try (ObjectInputStream in = new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray()))) {
      back = (UserIntentException) in.readObject();
    }
    assertSame(IntentExistsException.class, back.getClass());
    assertEquals(error.getMessage(), back.getMessage());
    assertEquals(error.getAttempts(), back.getAttempts());
    assertEquals(error.getStackTrace().length, back.getStackTrace().length);
    assertNull(back.request());
    try (UserIntentClient client = UserIntentClient.builder("localhost:1").plaintext().build()) {
      assertThrows(IllegalArgumentException.class, () -> client.repeat(back));
    }
  }
}
