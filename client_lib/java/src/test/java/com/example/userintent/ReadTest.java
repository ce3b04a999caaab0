package com.example.userintent;

import static com.example.userintent.FakeGateway.busy;
import static com.example.userintent.FakeGateway.error;
import static com.example.userintent.FakeGateway.info;
import static com.example.userintent.FakeGateway.person;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.example.userintent.v1.GetUserIntentRequest;
import com.example.userintent.v1.GetUserIntentResponse;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.inprocess.InProcessChannelBuilder;
import io.grpc.inprocess.InProcessServerBuilder;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.time.Duration;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** getUserIntent, by blocking calls and by futures: what it sends, when it is repeated, and what its errors say. */
@Timeout(60)
class ReadTest {
  private static final IntentKey REQUEST = IntentKey.ofRequest("R");
  private static final CallSettings ONE_TRY = CallSettings.defaults().withMaxTries(1);

  private final FakeGateway gateway = new FakeGateway();
  private Server server;
  private ManagedChannel channel;
  private UserIntentClient client;

  @BeforeEach
  void start() throws IOException {
    String name = InProcessServerBuilder.generateName();
    server = InProcessServerBuilder.forName(name).addService(gateway).build().start();
    channel = InProcessChannelBuilder.forName(name).disableRetry().build();
    client = UserIntentClient.builder(channel).build();
  }

  @AfterEach
  void stop() {
    client.close();
    channel.shutdownNow();
    server.shutdownNow();
  }

  private GetUserIntentResponse read(boolean async, IntentKey key, CallSettings settings) {
    return async ? client.getUserIntentAsync(key, settings).join() : client.getUserIntent(key, settings);
  }

  /** The error of a read: whatever it is, it says nothing about sending. */
  private UserIntentException fails(boolean async, IntentKey key, CallSettings settings) {
    UserIntentException error =
        UserIntentException.in(assertThrows(RuntimeException.class, () -> read(async, key, settings))).orElseThrow();
    assertEquals("", error.getSent());
    assertFalse(error.isMaybeSent());
    assertFalse(error.getMessage().contains("maybe"), error.getMessage());
    return error;
  }

  private static StatusRuntimeException forbidden(Status.Code code, com.google.protobuf.Message... details) {
    Metadata trailers = new Metadata();
    trailers.put(FakeGateway.PUSHBACK, "-1");
    return error(code, trailers, details);
  }

  @ParameterizedTest(name = "async: {0}")
  @ValueSource(booleans = {false, true})
  void whatWasAskedIsSentAndNothingElse(boolean async) {
    GetUserIntentResponse response = read(async, REQUEST, CallSettings.defaults());
    assertEquals("user", response.getUserIntent().getUserId());
    assertTrue(gateway.timeouts.get(0) > 30_000 && gateway.timeouts.get(0) < 36_000, "" + gateway.timeouts);
    assertTrue(read(async, IntentKey.ofIntent("I"),
        CallSettings.defaults().withMaxAge(Duration.ofMillis(1500)).withAllowStale().withRequestId("of creations"))
                   .getStale());
    read(async, IntentKey.ofIntent(""), CallSettings.defaults().withMaxAge(Duration.ofSeconds(-2)));
    GetUserIntentRequest.Builder aged = GetUserIntentRequest.newBuilder().setUserIntentId("I").setAllowStale(true);
    aged.getMaxAgeBuilder().setSeconds(1).setNanos(500_000_000);
    GetUserIntentRequest.Builder negative = GetUserIntentRequest.newBuilder().setUserIntentId("");
    negative.getMaxAgeBuilder().setSeconds(-2);
    assertEquals(List.of(GetUserIntentRequest.newBuilder().setRequestId("R").build(), aged.build(), negative.build()),
        gateway.reads);
  }

  @ParameterizedTest(name = "async: {0}")
  @ValueSource(booleans = {false, true})
  void repeatedAfterRetryInfoAndAfterUnavailableOfOthers(boolean async) {
    Metadata slower = new Metadata();
    slower.put(FakeGateway.PUSHBACK, "900");
    gateway.answers.addAll(
        List.of(busy(20), Status.UNAVAILABLE.asRuntimeException(), Status.UNAVAILABLE.asRuntimeException(slower)));
    long started = System.nanoTime();
    assertEquals("intent", read(async, REQUEST, CallSettings.defaults()).getUserIntent().getId());
    assertTrue(System.nanoTime() - started >= 1_320_000_000L);
    assertEquals(Collections.nCopies(4, gateway.reads.get(0)), gateway.reads);
  }

  @ParameterizedTest(name = "async: {0}")
  @ValueSource(booleans = {false, true})
  void notRepeatedAndWhy(boolean async) {
    Map<StatusRuntimeException, Class<?>> once = Map.of(forbidden(Status.Code.UNAVAILABLE), RetryLaterException.class,
        error(Status.Code.UNAVAILABLE, new Metadata(), info("DRAINING", "sent", "no", "recovery", "RETRY_SAME_ID")),
        RetryLaterException.class, Status.PERMISSION_DENIED.asRuntimeException(), UserIntentException.class,
        forbidden(Status.Code.INTERNAL, info("INTERNAL", "sent", "maybe", "recovery", "STOP")), StopException.class,
        forbidden(Status.Code.FAILED_PRECONDITION, info("NOT_CREATED", "recovery", "ASK_SAME_ID")),
        OutcomeUnknownException.class);
    once.forEach((answer, kind) -> {
      gateway.answers.add(answer);
      UserIntentException error = fails(async, REQUEST, CallSettings.defaults());
      assertEquals(kind, error.getClass());
      assertEquals(1, error.getTries());
      assertEquals(NotRepeated.NOT_RETRYABLE, error.getNotRepeated());
    });
    gateway.answers.add(Status.UNAVAILABLE.asRuntimeException());
    UserIntentException last = fails(async, REQUEST, ONE_TRY);
    assertEquals(NotRepeated.MAX_TRIES, last.getNotRepeated());
    assertEquals(Duration.ofMillis(200), last.getRetryAfter().orElseThrow());
    gateway.answers.add(busy(60_000));
    CallSettings short20 = CallSettings.defaults().withTimeout(Duration.ofSeconds(20));
    assertEquals(NotRepeated.DEADLINE, fails(async, REQUEST, short20).getNotRepeated());
    gateway.answers.addAll(Collections.nCopies(20, busy(0)));
    UserIntentException spent = fails(async, REQUEST, CallSettings.defaults().withMaxTries(50));
    assertEquals(NotRepeated.BUDGET, spent.getNotRepeated());
    assertEquals(11, spent.getTries());
  }

  @ParameterizedTest(name = "async: {0}")
  @ValueSource(booleans = {false, true})
  void theFieldsOfAnError(boolean async) throws Exception {
    gateway.answers.add(forbidden(
        Status.Code.NOT_FOUND, info("USER_INTENT_NOT_FOUND", "sent", "yes", "recovery", "STOP", "http_status", "404")));
    UserIntentException error = fails(async, IntentKey.ofIntent("I"), CallSettings.defaults());
    assertEquals("I", error.getUserIntentId().orElseThrow());
    assertEquals("", error.getRequestId());
    assertEquals(404, error.getHttpStatus().orElseThrow());
    assertEquals("NOT_FOUND USER_INTENT_NOT_FOUND: told (STOP, user_intent_id I, tries 1)", error.getMessage());
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
      out.writeObject(error);
    }
    UserIntentException copy =
        (UserIntentException) new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray())).readObject();
    assertEquals(error.getMessage(), copy.getMessage());
    assertEquals(NotRepeated.NOT_RETRYABLE, copy.getNotRepeated());
    assertFalse(copy.isMaybeSent());
    assertThrows(IllegalArgumentException.class, () -> client.repeat(error));
  }

  @ParameterizedTest(name = "async: {0}")
  @ValueSource(booleans = {false, true})
  void whatEndsHere(boolean async) {
    gateway.answers.add(FakeGateway.SILENCE);
    UserIntentException underWay = fails(async, REQUEST, CallSettings.defaults().withTimeout(Duration.ofMillis(300)));
    assertEquals(RetryLaterException.class, underWay.getClass());
    assertEquals(Status.Code.DEADLINE_EXCEEDED, underWay.getCode());
    assertEquals(1, underWay.getTries());
    UserIntentException over = fails(async, REQUEST, CallSettings.defaults().withTimeout(Duration.ofNanos(1)));
    assertEquals("RETRY_SAME_ID", over.getRecovery());
    assertEquals(0, over.getTries());
    for (IntentKey bad : List.of(IntentKey.ofIntent("x".repeat(70_000)), IntentKey.ofRequest("half \ud83d"))) {
      UserIntentException error = fails(async, bad, CallSettings.defaults());
      assertEquals(InvalidRequestException.class, error.getClass());
      assertEquals("MALFORMED_REQUEST", error.getReason());
      assertEquals(NotRepeated.NOT_RETRYABLE, error.getNotRepeated());
    }
    assertEquals(1, gateway.reads.size());
  }

  @Test
  void cancelledWhileItWaitsToBeRepeated() throws Exception {
    gateway.answers.add(busy(30_000));
    CallFuture<GetUserIntentResponse> future = client.getUserIntentAsync(REQUEST);
    while (gateway.reads.isEmpty()) {
      Thread.sleep(5);
    }
    future.cancel(true);
    UserIntentException error =
        UserIntentException.in(assertThrows(RuntimeException.class, future::join)).orElseThrow();
    assertEquals(RetryLaterException.class, error.getClass());
    assertEquals("", error.getSent());
    assertEquals("R", future.getRequestId());
  }

  @Test
  void pausesOfReads() {
    Map.of(0, 200L, 1, 200L, 2, 400L, 4, 1600L, 6, 5000L, 1000, 5000L)
        .forEach((tries, pause) -> assertEquals(pause, Decoded.pauseAfter(tries)));
  }

  @Test
  void aCreationSaysWhyItWasNotRepeated() {
    gateway.answers.addAll(List.of(Status.UNAVAILABLE.asRuntimeException(), busy(0), busy(3_600_000)));
    for (NotRepeated why : List.of(NotRepeated.NOT_RETRYABLE, NotRepeated.MAX_TRIES, NotRepeated.DEADLINE)) {
      CallSettings settings = why == NotRepeated.MAX_TRIES ? ONE_TRY : CallSettings.defaults();
      assertEquals(why,
          assertThrows(UserIntentException.class, () -> client.createUserIntent(person(), settings)).getNotRepeated());
    }
    gateway.answers.addAll(Collections.nCopies(20, busy(0)));
    assertEquals(NotRepeated.BUDGET,
        assertThrows(UserIntentException.class,
            () -> client.createUserIntent(person(), CallSettings.defaults().withMaxTries(50)))
            .getNotRepeated());
  }
}
