package com.example.userintent;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.example.userintent.v1.CreateUserIntentRequest;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.inprocess.InProcessChannelBuilder;
import io.grpc.inprocess.InProcessServerBuilder;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.function.Supplier;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** What is known before sending is told as not sent, by blocking calls and by futures. */
class NotSentTest {
  private static final CallSettings NO_TIME = CallSettings.defaults().withTimeout(Duration.ofNanos(1));

  private final FakeGateway gateway = new FakeGateway();
  private Server server;
  private ManagedChannel channel;
  private UserIntentClient client;

  @BeforeEach
  void start() throws IOException {
    String name = InProcessServerBuilder.generateName();
    server = InProcessServerBuilder.forName(name).addService(gateway).build().start();
    channel = InProcessChannelBuilder.forName(name).build();
    client = UserIntentClient.builder(channel).build();
  }

  @AfterEach
  void stop() {
    channel.shutdownNow();
    server.shutdownNow();
  }

  private static CreateUserIntentRequest request(String address2) {
    return CreateUserIntentRequest.newBuilder().setAddress2(address2).build();
  }

  private static UserIntentException failure(Supplier<?> call) {
    return UserIntentException.in(assertThrows(RuntimeException.class, call::get)).orElseThrow();
  }

  private void notSent(Status.Code code, Class<? extends UserIntentException> kind, List<Supplier<?>> calls) {
    for (Supplier<?> call : calls) {
      UserIntentException error = failure(call);
      assertEquals(kind, error.getClass());
      assertEquals(code, error.getCode());
      assertEquals("no", error.getSent());
      assertFalse(error.isMaybeSent());
      assertFalse(error.getMessage().contains("maybe"), error.getMessage());
      assertEquals(0, error.getTries());
      assertFalse(error.getRequestId().isEmpty());
    }
    assertEquals(List.of(), gateway.requests);
  }

  private List<Supplier<?>> both(CreateUserIntentRequest request, CallSettings settings) {
    return List.of(
        () -> client.createUserIntent(request, settings), () -> client.createUserIntentAsync(request, settings).join());
  }

  @Test
  void aRequestOver64KiB() {
    CreateUserIntentRequest tooLong = request("x".repeat(70_000));
    notSent(Status.Code.INVALID_ARGUMENT, InvalidRequestException.class, both(tooLong, CallSettings.defaults()));
    CallSettings longId = CallSettings.defaults().withRequestId("1".repeat(70_000));
    notSent(Status.Code.INVALID_ARGUMENT, InvalidRequestException.class, both(request(""), longId));
    assertEquals("MALFORMED_REQUEST", failure(() -> client.createUserIntent(tooLong)).getReason());
  }

  @Test
  void theLimitCountsTheIdThatTheLibraryMakes() {
    int rest = 65_536
        - request("x".repeat(65_000))
              .toBuilder()
              .setRequestId(UserIntentClient.newRequestId())
              .build()
              .getSerializedSize();
    client.createUserIntent(request("x".repeat(65_000 + rest)));
    assertEquals(1, gateway.requests.size());
    assertEquals(65_536, gateway.requests.get(0).getSerializedSize());
    gateway.requests.clear();
    notSent(Status.Code.INVALID_ARGUMENT, InvalidRequestException.class,
        both(request("x".repeat(65_001 + rest)), CallSettings.defaults()));
  }

  @Test
  void anIdThatIsNotUnicode() {
    CallSettings half = CallSettings.defaults().withRequestId("half \ud83d");
    notSent(Status.Code.INVALID_ARGUMENT, InvalidRequestException.class, both(request(""), half));
    notSent(Status.Code.INVALID_ARGUMENT, InvalidRequestException.class,
        List.of(() -> client.getCreation("half \ud83d"), () -> client.getCreationAsync("half \ud83d").join()));
  }

  @Test
  void aDeadlineThatIsOver() {
    notSent(Status.Code.DEADLINE_EXCEEDED, RetryLaterException.class, both(request(""), NO_TIME));
  }

  @Test
  void theLongestTimeout() {
    CallSettings longest = CallSettings.defaults().withTimeout(Duration.ofSeconds(Long.MAX_VALUE));
    client.createUserIntent(request(""), longest);
    client.createUserIntentAsync(request(""), longest).join();
  }

  @Test
  void aContextThatWasCancelled() {
    Context.CancellableContext context = Context.current().withCancellation();
    context.cancel(null);
    context.run(
        () -> notSent(Status.Code.CANCELLED, RetryLaterException.class, both(request(""), CallSettings.defaults())));
  }

  @Test
  void aThreadThatWasInterrupted() {
    Thread.currentThread().interrupt();
    try {
      notSent(Status.Code.CANCELLED, RetryLaterException.class, List.of(() -> client.createUserIntent(request(""))));
      assertTrue(Thread.currentThread().isInterrupted());
    } finally {
      Thread.interrupted();
    }
  }

  @Test
  void aChannelThatWasShutDown() {
    channel.shutdownNow();
    notSent(Status.Code.UNAVAILABLE, RetryLaterException.class, both(request(""), CallSettings.defaults()));
  }

  @Test
  void targetsThatNameNothing() {
    for (String target : List.of("", "/", "://", "dns:///", "host:", "127.0.0.1\0:1", "host\n:1", "host\u007f:1")) {
      assertThrows(IllegalArgumentException.class, () -> UserIntentClient.builder(target), target);
    }
    for (String target : List.of("localhost:1", "dns:///localhost:1", "[::1]:1", "::", "unix:/run/x")) {
      UserIntentClient.builder(target);
    }
  }

  @Test
  void aRepeatThatCannotBeginStaysMaybeSent() {
    gateway.answers.add(FakeGateway.SILENCE);
    UserIntentException first = failure(
        () -> client.createUserIntent(request(""), CallSettings.defaults().withTimeout(Duration.ofMillis(100))));
    assertTrue(first.isMaybeSent());
    UserIntentException second = failure(() -> client.repeat(first, NO_TIME));
    UserIntentException third = failure(() -> client.repeatAsync(second, NO_TIME).join());
    for (UserIntentException error : List.of(second, third)) {
      assertEquals(OutcomeUnknownException.class, error.getClass());
      assertTrue(error.isMaybeSent());
      assertEquals(0, error.getTries());
      assertEquals(first.getRequestId(), error.getRequestId());
    }
    assertEquals(1, gateway.requests.size());
    UserIntentException never = failure(() -> client.createUserIntent(request(""), NO_TIME));
    assertFalse(failure(() -> client.repeat(never, NO_TIME)).isMaybeSent());
    assertEquals(first.getRequestId(), client.repeat(third).getRequestId());
  }
}
