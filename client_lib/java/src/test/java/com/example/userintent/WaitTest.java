package com.example.userintent;

import static com.example.userintent.FakeGateway.SILENCE;
import static com.example.userintent.FakeGateway.changed;
import static com.example.userintent.FakeGateway.reset;
import static com.example.userintent.FakeGateway.synced;
import static com.example.userintent.v1.CreationState.CREATION_STATE_CREATED;
import static com.example.userintent.v1.CreationState.CREATION_STATE_IN_PROGRESS;
import static com.example.userintent.v1.CreationState.CREATION_STATE_NOT_SENT;
import static com.example.userintent.v1.CreationState.CREATION_STATE_REJECTED;
import static com.example.userintent.v1.CreationState.CREATION_STATE_UNKNOWN;
import static com.example.userintent.v1.UserIntentStatus.USER_INTENT_STATUS_APPROVED;
import static com.example.userintent.v1.UserIntentStatus.USER_INTENT_STATUS_CONVERTED_TO_USER;
import static com.example.userintent.v1.UserIntentStatus.USER_INTENT_STATUS_PENDING;
import static com.example.userintent.v1.UserIntentStatus.USER_INTENT_STATUS_REJECTED;
import static com.example.userintent.v1.UserIntentStatus.USER_INTENT_STATUS_SUSPENDED;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.example.userintent.FakeGateway.Script;
import com.example.userintent.v1.Creation;
import com.example.userintent.v1.CreationState;
import com.example.userintent.v1.UserIntent;
import com.example.userintent.v1.UserIntentStatus;
import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.inprocess.InProcessChannelBuilder;
import io.grpc.inprocess.InProcessServerBuilder;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.CancellationException;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** waitForOutcome and waitForStatus, blocking and by futures: which states end them, and how they fail. */
@Timeout(60)
class WaitTest {
  private static final Set<UserIntentStatus> APPROVED = Set.of(USER_INTENT_STATUS_APPROVED);
  private static final CallSettings SHORT = CallSettings.defaults().withTimeout(Duration.ofMillis(300));

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

  private Creation outcome(boolean async, CallSettings settings) {
    return async ? client.waitForOutcomeAsync("R", settings).join() : client.waitForOutcome("R", settings);
  }

  private UserIntent status(boolean async, Set<UserIntentStatus> statuses) {
    return async ? client.waitForStatusAsync("R", statuses).join() : client.waitForStatus("R", statuses);
  }

  private static UserIntentException fails(org.junit.jupiter.api.function.Executable wait) {
    UserIntentException error = UserIntentException.in(assertThrows(RuntimeException.class, wait)).orElseThrow();
    assertEquals("", error.getSent());
    assertFalse(error.isMaybeSent());
    assertEquals("R", error.getRequestId());
    return error;
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void answersAsSoonAsItIsKnown(boolean async) throws Exception {
    for (CreationState state : List.of(CREATION_STATE_CREATED, CREATION_STATE_REJECTED, CREATION_STATE_NOT_SENT)) {
      gateway.watches.clear();
      gateway.streams.addAll(List.of(
          new Script(Status.UNAVAILABLE.asRuntimeException(), changed(CREATION_STATE_IN_PROGRESS, "1"), synced("2")),
          new Script(SILENCE, changed(CREATION_STATE_UNKNOWN, "3"), changed(state, "4"))));
      assertEquals(state, outcome(async, CallSettings.defaults()).getState());
      assertEquals(List.of("R"), gateway.watches.get(1).getRequestIdsList());
      assertEquals("2", gateway.watches.get(1).getResumeToken().toStringUtf8());
    }
    assertTrue(gateway.watchCancelled.tryAcquire(3, 10, TimeUnit.SECONDS));
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void aRequestThatIsNotRecordedIsNotWaitedFor(boolean async) {
    gateway.streams.addAll(List.of(new Script(Status.UNAVAILABLE.asRuntimeException()),
        new Script(SILENCE, synced("1")), new Script(SILENCE, synced("1"))));
    CallSettings noToken = CallSettings.defaults().withResumeToken(ByteString.copyFromUtf8("of another watch"));
    UserIntentException error = fails(() -> outcome(async, noToken));
    assertInstanceOf(StopException.class, error);
    assertEquals("REQUEST_NOT_FOUND", error.getReason());
    assertEquals(Status.Code.NOT_FOUND, error.getCode());
    assertEquals(2, error.getTries());
    gateway.watches.forEach(request -> assertEquals(ByteString.EMPTY, request.getResumeToken()));
    assertEquals("REQUEST_NOT_FOUND", fails(() -> status(async, APPROVED)).getReason());
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void beginsAnewAfterReset(boolean async) {
    gateway.streams.add(
        new Script(SILENCE, changed(CREATION_STATE_UNKNOWN, "1"), synced("2"), reset("3"), synced("4")));
    assertEquals("REQUEST_NOT_FOUND", fails(() -> outcome(async, CallSettings.defaults())).getReason());
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void endsWithTheDeadline(boolean async) {
    gateway.streams.add(new Script(SILENCE, changed(CREATION_STATE_UNKNOWN, "1"), synced("2")));
    UserIntentException error = fails(() -> outcome(async, SHORT));
    assertEquals(Status.Code.DEADLINE_EXCEEDED, error.getCode());
    assertInstanceOf(RetryLaterException.class, error);
    gateway.streams.add(new Script(SILENCE, changed(CREATION_STATE_UNKNOWN, "1"), synced("2")));
    UserIntentClient impatient = UserIntentClient.builder(channel).timeout(Duration.ofMillis(300)).build();
    assertEquals(Status.Code.DEADLINE_EXCEEDED, fails(() -> impatient.waitForStatus("R", APPROVED)).getCode());
    impatient.close();
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void failsAsAWatchDoes(boolean async) {
    gateway.streams.add(new Script(Status.PERMISSION_DENIED.asRuntimeException()));
    assertEquals(Status.Code.PERMISSION_DENIED, fails(() -> outcome(async, CallSettings.defaults())).getCode());
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void canBeCancelled(boolean async) throws Exception {
    gateway.streams.add(new Script(SILENCE, changed(CREATION_STATE_UNKNOWN, "1"), synced("2")));
    if (async) {
      CallFuture<Creation> wait = client.waitForOutcomeAsync("R");
      gateway.watchBegan.acquire();
      wait.cancel(true);
      assertEquals(Status.Code.CANCELLED, fails(() -> {
        try {
          wait.join();
        } catch (CancellationException cancelled) {
          throw cancelled;
        }
      }).getCode());
      assertTrue(gateway.watchCancelled.tryAcquire(10, TimeUnit.SECONDS));
    } else {
      Thread.currentThread().interrupt();
      assertEquals(Status.Code.CANCELLED, fails(() -> client.waitForOutcome("R")).getCode());
      assertTrue(Thread.interrupted());
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void answersWithTheFirstStatusOfThose(boolean async) {
    gateway.streams.add(new Script(SILENCE, changed(CREATION_STATE_UNKNOWN, "1"),
        changed(USER_INTENT_STATUS_PENDING, "2"), synced("3"), changed(USER_INTENT_STATUS_REJECTED, "4")));
    UserIntent intent = status(async, Set.of(USER_INTENT_STATUS_APPROVED, USER_INTENT_STATUS_REJECTED));
    assertEquals(USER_INTENT_STATUS_REJECTED, intent.getStatus());
    assertEquals("intent", intent.getId());
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void aFinalStatusThatWasNotAskedFor(boolean async) {
    for (UserIntentStatus status :
        List.of(USER_INTENT_STATUS_REJECTED, USER_INTENT_STATUS_SUSPENDED, USER_INTENT_STATUS_CONVERTED_TO_USER)) {
      gateway.streams.add(new Script(SILENCE, changed(status, "1")));
      UserIntentException error = fails(() -> status(async, APPROVED));
      assertInstanceOf(StopException.class, error);
      assertEquals(UserIntentException.STATUS_FINAL, error.getReason());
      assertEquals(Optional.of(status), error.getFinalStatus());
      assertEquals(Optional.of("intent"), error.getUserIntentId());
      assertEquals(Status.Code.FAILED_PRECONDITION, error.getCode());
    }
  }

  @ParameterizedTest
  @ValueSource(booleans = {false, true})
  void noIntentNoStatus(boolean async) {
    for (CreationState state : List.of(CREATION_STATE_REJECTED, CREATION_STATE_NOT_SENT)) {
      gateway.streams.add(new Script(SILENCE, changed(state, "1")));
      UserIntentException error = fails(() -> status(async, APPROVED));
      assertInstanceOf(StopException.class, error);
      assertEquals("NOT_CREATED", error.getReason());
      assertEquals(Optional.empty(), error.getFinalStatus());
    }
  }
}
