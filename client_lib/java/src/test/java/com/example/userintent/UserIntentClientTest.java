package com.example.userintent;

import static com.example.userintent.FakeGateway.busy;
import static com.example.userintent.FakeGateway.person;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.example.userintent.v1.CreateUserIntentRequest;
import com.example.userintent.v1.UserIntentServiceGrpc;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.inprocess.InProcessChannelBuilder;
import io.grpc.inprocess.InProcessServerBuilder;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicReference;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
class UserIntentClientTest {
  private static final CallSettings FIVE_SECONDS = CallSettings.defaults().withTimeout(Duration.ofSeconds(5));

  private final FakeGateway gateway = new FakeGateway();
  private Server server;
  private ManagedChannel channel;
  private UserIntentClient client;

  @BeforeEach
  void start() throws IOException {
    String name = UUID.randomUUID().toString();
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

  private UserIntentException fails() {
    return assertThrows(UserIntentException.class, () -> client.createUserIntent(person()));
  }

  private void awaitRequests(int count) throws InterruptedException {
    while (gateway.requests.size() < count) {
      Thread.sleep(5);
    }
  }

  // -- the id
  // -----------------------------------------------------------------------------------------------------------

  @Test
  void makesAnIdAndReturnsIt() {
    CreateUserIntentRequest request = person();
    CreateResult result = client.createUserIntent(request);
    assertEquals(UUID.fromString(result.getRequestId()).toString(), result.getRequestId());
    assertEquals(result.getRequestId(), gateway.requests.get(0).getRequestId());
    assertEquals("", request.getRequestId());
    assertEquals("intent-" + result.getRequestId(), result.getUserIntentId());
    assertEquals(1, result.getTries());
    assertNotEquals(result.getRequestId(), client.createUserIntent(request).getRequestId());
  }

  @Test
  void takesTheCallersId() {
    CreateUserIntentRequest request = person().toBuilder().setRequestId("MINE").build();
    assertEquals("MINE", client.createUserIntent(request).getRequestId());
    assertEquals(
        "stored", client.createUserIntent(request, CallSettings.defaults().withRequestId("stored")).getRequestId());
    assertEquals("stored", gateway.requests.get(1).getRequestId());
  }

  @Test
  void anErrorHasTheIdAndRepeatKeepsIt() {
    gateway.answers.add(Status.UNAVAILABLE.asRuntimeException());
    UserIntentException error = fails();
    assertTrue(error.isMaybeSent());
    assertEquals(gateway.requests.get(0).getRequestId(), error.getRequestId());
    CreateResult result = client.repeat(error);
    assertEquals(error.getRequestId(), result.getRequestId());
    assertEquals(gateway.requests.get(0), gateway.requests.get(1));
    assertEquals(error.getRequestId(), client.repeatAsync(error).join().getRequestId());
  }

  @Test
  void aRequestThatIsNotUnicodeIsNotSent() {
    // protobuf would send a question mark for half a surrogate pair: a name that nobody has.
    CreateUserIntentRequest request = person().toBuilder().setLastName("half \ud83d").setRequestId("id").build();
    for (CreateUserIntentRequest bad :
        List.of(request, person().toBuilder().setRequestId("id").putMetadata("k", "\ude00").build())) {
      UserIntentException error = assertThrows(InvalidRequestException.class, () -> client.createUserIntent(bad));
      assertEquals("MALFORMED_REQUEST", error.getReason());
      assertEquals("no", error.getSent());
      assertFalse(error.isMaybeSent());
      assertEquals("id", error.getRequestId());
      assertInstanceOf(InvalidRequestException.class,
          assertThrows(CompletionException.class, () -> client.createUserIntentAsync(bad).join()).getCause());
    }
    assertEquals(List.of(), gateway.requests);
    client.createUserIntent(person().toBuilder().setLastName("whole \ud83d\ude00").build());
  }

  // -- repeats
  // ----------------------------------------------------------------------------------------------------------

  @Test
  void repeatsWithTheSameIdNotBeforeTheDelay() {
    gateway.answers.addAll(List.of(busy(80), busy(120)));
    long started = System.nanoTime();
    CreateResult result = client.createUserIntent(person());
    assertTrue(System.nanoTime() - started >= 200_000_000L);
    assertEquals(3, result.getTries());
    assertEquals(1, gateway.requests.stream().map(CreateUserIntentRequest::getRequestId).distinct().count());
  }

  @Test
  void repeatsWithoutBlocking() {
    gateway.answers.addAll(List.of(busy(80), busy(120)));
    long started = System.nanoTime();
    CallFuture<CreateResult> future = client.createUserIntentAsync(person());
    assertFalse(future.isDone());
    CreateResult result = future.join();
    assertTrue(System.nanoTime() - started >= 200_000_000L);
    assertEquals(3, result.getTries());
    assertEquals(future.getRequestId(), result.getRequestId());
    assertEquals(1, gateway.requests.stream().map(CreateUserIntentRequest::getRequestId).distinct().count());
  }

  @Test
  void maxTriesBoundsTheRepeats() {
    for (int i = 0; i < 10; i++) {
      gateway.answers.add(busy(1));
    }
    UserIntentException error = fails();
    assertEquals(5, error.getTries());
    assertEquals(Duration.ofMillis(1), error.getRetryAfter().orElseThrow());
    CallSettings once = CallSettings.defaults().withMaxTries(1);
    assertEquals(1, assertThrows(RetryLaterException.class, () -> client.createUserIntent(person(), once)).getTries());
    assertEquals(6, gateway.requests.size());
  }

  @Test
  void theBudgetIsSharedAndRefilledBySuccess() {
    for (int i = 0; i < 12; i++) {
      gateway.answers.add(busy(0));
    }
    CallSettings often = CallSettings.defaults().withMaxTries(100);
    assertEquals(
        11, assertThrows(RetryLaterException.class, () -> client.createUserIntent(person(), often)).getTries());
    assertEquals(1, assertThrows(RetryLaterException.class, () -> client.createUserIntent(person(), often)).getTries());
    for (int i = 0; i < 10; i++) {
      client.createUserIntent(person());
    }
    gateway.answers.addAll(List.of(busy(0), busy(0)));
    assertEquals(2, assertThrows(RetryLaterException.class, () -> client.createUserIntent(person(), often)).getTries());
  }

  @Test
  void whatIsNotRepeatedCostsNothingAndTheBudgetHasALid() {
    for (int i = 0; i < 15; i++) {
      gateway.answers.addAll(List.of(FakeGateway.fieldInvalid(), busy(30_000)));
      fails();
      assertThrows(RetryLaterException.class, () -> client.createUserIntent(person(), FIVE_SECONDS));
    }
    for (int i = 0; i < 50; i++) {
      client.createUserIntent(person());
    }
    for (int i = 0; i < 11; i++) {
      gateway.answers.add(busy(0));
    }
    CallSettings often = CallSettings.defaults().withMaxTries(100);
    assertEquals(
        11, assertThrows(RetryLaterException.class, () -> client.createUserIntent(person(), often)).getTries());
  }

  @Test
  void noRepeatWithoutRetryInfoOrAgainstThePushback() {
    Metadata forbidden = new Metadata();
    forbidden.put(FakeGateway.PUSHBACK, "-1");
    Metadata garbled = new Metadata();
    garbled.put(FakeGateway.PUSHBACK, "soon");
    List<StatusRuntimeException> errors = List.of(Status.UNAVAILABLE.asRuntimeException(),
        FakeGateway.error(
            Status.Code.UNAVAILABLE, new Metadata(), FakeGateway.info("DRAINING", "recovery", "RETRY_SAME_ID")),
        FakeGateway.error(Status.Code.UNAVAILABLE, forbidden, FakeGateway.info("DRAINING"), FakeGateway.retry(1)),
        FakeGateway.error(Status.Code.UNAVAILABLE, garbled, FakeGateway.info("DRAINING"), FakeGateway.retry(1)));
    for (StatusRuntimeException told : errors) {
      gateway.answers.add(told);
      UserIntentException error = fails();
      assertEquals(1, error.getTries());
      assertEquals(java.util.Optional.empty(), error.getRetryAfter());
    }
  }

  @Test
  void aPushbackThatIsADelayCounts() {
    Metadata later = new Metadata();
    later.put(FakeGateway.PUSHBACK, "150");
    gateway.answers.add(
        FakeGateway.error(Status.Code.UNAVAILABLE, later, FakeGateway.info("OVERLOADED"), FakeGateway.retry(1)));
    long started = System.nanoTime();
    assertEquals(2, client.createUserIntent(person()).getTries());
    assertTrue(System.nanoTime() - started >= 150_000_000L);
  }

  @Test
  void jitterLengthensByUpToAQuarter() {
    assertEquals(1_000_000_000L, Tries.lengthen(Duration.ofSeconds(1), 0));
    assertEquals(1_250_000_000L, Tries.lengthen(Duration.ofSeconds(1), 1));
    assertEquals(Long.MAX_VALUE, Tries.lengthen(Duration.ofSeconds(Long.MAX_VALUE), 1));
  }

  @Test
  void aDelayThatDoesNotFitTheDeadlineIsNotWaitedFor() {
    gateway.answers.addAll(List.of(busy(30_000), busy(30_000), busy(Long.MAX_VALUE)));
    assertEquals(
        1, assertThrows(RetryLaterException.class, () -> client.createUserIntent(person(), FIVE_SECONDS)).getTries());
    // 30 s fit into 35 s, but not with the longest jitter.
    try (UserIntentClient unlucky = UserIntentClient.builder(channel).jitter(() -> 0.9).build()) {
      assertEquals(1, assertThrows(RetryLaterException.class, () -> unlucky.createUserIntent(person())).getTries());
    }
    assertEquals(1, fails().getTries());
  }

  // -- deadlines
  // --------------------------------------------------------------------------------------------------------

  @Test
  void theDefaultDeadlineIs35Seconds() {
    client.createUserIntent(person());
    assertTrue(gateway.timeouts.get(0) > 30_000 && gateway.timeouts.get(0) <= 35_000, gateway.timeouts.toString());
  }

  @Test
  void theNearerOfTimeoutAndContextCounts() throws Exception {
    Context.current()
        .withDeadlineAfter(9, TimeUnit.SECONDS, Executors.newSingleThreadScheduledExecutor(task -> {
          Thread thread = new Thread(task);
          thread.setDaemon(true);
          return thread;
        }))
        .call(() -> {
          client.createUserIntent(person());
          client.createUserIntentAsync(person()).join();
          return client.createUserIntent(person(), FIVE_SECONDS);
        });
    assertTrue(gateway.timeouts.get(0) <= 9_000 && gateway.timeouts.get(0) > 5_000, gateway.timeouts.toString());
    assertTrue(gateway.timeouts.get(1) <= 9_000 && gateway.timeouts.get(1) > 5_000, gateway.timeouts.toString());
    assertTrue(gateway.timeouts.get(2) <= 5_000, gateway.timeouts.toString());
  }

  @Test
  void triesShareOneDeadline() {
    gateway.answers.add(busy(300));
    client.createUserIntent(person(), FIVE_SECONDS);
    assertTrue(gateway.timeouts.get(0) - gateway.timeouts.get(1) >= 290, gateway.timeouts.toString());
  }

  @Test
  void aDeadlineMeansMaybeSent() {
    gateway.answers.add(FakeGateway.SILENCE);
    UserIntentException error = assertThrows(OutcomeUnknownException.class,
        () -> client.createUserIntent(person(), CallSettings.defaults().withTimeout(Duration.ofMillis(100))));
    assertEquals(Status.Code.DEADLINE_EXCEEDED, error.getCode());
    assertTrue(error.isMaybeSent());
    assertEquals(error.getRequestId(), client.repeat(error).getRequestId());
  }

  @Test
  void aWaitThatTookTooLongTellsTheErrorBeforeIt() throws Exception {
    Deadline deadline = Deadline.after(200, TimeUnit.MILLISECONDS);
    Tries tries = new Tries("id", person(), deadline, 5, new RetryBudget(), () -> 0, () -> false);
    tries.begin();
    assertEquals(1_000_000L, tries.failed(busy(1)));
    while (!deadline.isExpired()) {
      Thread.sleep(5);
    }
    RetryLaterException error = assertThrows(RetryLaterException.class, tries::begin);
    assertEquals("OVERLOADED", error.getReason());
    assertEquals(1, error.getTries());
  }

  // -- cancelling
  // -------------------------------------------------------------------------------------------------------

  private void isCancelled(CallFuture<CreateResult> future, int tries) {
    assertTrue(future.isCancelled());
    CancellationException thrown = assertThrows(CancellationException.class, future::join);
    UserIntentException error = UserIntentException.in(thrown).orElseThrow();
    assertInstanceOf(OutcomeUnknownException.class, error);
    assertEquals(Status.Code.CANCELLED, error.getCode());
    assertEquals(future.getRequestId(), error.getRequestId());
    assertEquals(tries, error.getTries());
    assertEquals(future.getRequestId(), client.repeat(error).getRequestId());
  }

  @Test
  void cancelEndsTheRpc() throws Exception {
    gateway.answers.add(FakeGateway.SILENCE);
    CallFuture<CreateResult> future = client.createUserIntentAsync(person());
    gateway.silent.await();
    assertTrue(future.cancel(true));
    gateway.cancelled.await();
    isCancelled(future, 1);
  }

  @Test
  void cancelEndsTheWaitForARepeat() throws Exception {
    gateway.answers.add(busy(1_000));
    CallFuture<CreateResult> future = client.createUserIntentAsync(person());
    awaitRequests(1);
    future.cancel(false);
    assertTrue(future.isCancelled());
    Thread.sleep(1_500); // when the repeat would have come
    assertEquals(1, gateway.requests.size());
    isCancelled(future, 1);
  }

  @Test
  void aTimeoutOfTheFutureEndsTheRpc() throws Exception {
    gateway.answers.add(FakeGateway.SILENCE);
    CompletableFuture<CreateResult> future =
        client.createUserIntentAsync(person()).orTimeout(100, TimeUnit.MILLISECONDS);
    assertInstanceOf(TimeoutException.class, assertThrows(ExecutionException.class, future::get).getCause());
    gateway.cancelled.await();
  }

  @Test
  void derivedStagesGetTheError() {
    gateway.answers.add(FakeGateway.fieldInvalid());
    AtomicReference<Throwable> heard = new AtomicReference<>();
    client.createUserIntentAsync(person())
        .thenApply(CreateResult::getUserIntentId)
        .exceptionally(failure -> {
          heard.set(failure);
          return "";
        })
        .join();
    assertInstanceOf(InvalidRequestException.class, UserIntentException.in(heard.get()).orElseThrow());
    assertEquals(java.util.Optional.empty(), UserIntentException.in(new IOException(new IOException())));
  }

  private UserIntentException inThread(CheckedConsumer<Thread> disturb) throws Exception {
    AtomicReference<UserIntentException> heard = new AtomicReference<>();
    Thread thread = new Thread(() -> {
      UserIntentException error = fails();
      if (Thread.currentThread().isInterrupted() || error.getMessage().contains("closed")) {
        heard.set(error);
      }
    });
    thread.start();
    disturb.accept(thread);
    thread.join();
    return heard.get();
  }

  private interface CheckedConsumer<T> {
    void accept(T value) throws Exception;
  }

  @Test
  void anInterruptCancels() throws Exception {
    gateway.answers.add(FakeGateway.SILENCE);
    UserIntentException error = inThread(thread -> {
      gateway.silent.await();
      thread.interrupt();
    });
    assertEquals(Status.Code.CANCELLED, error.getCode());
    assertTrue(error.isMaybeSent());
    gateway.cancelled.await();
  }

  @Test
  void anInterruptEndsTheWaitForARepeat() throws Exception {
    gateway.answers.add(busy(25_000));
    UserIntentException error = inThread(thread -> {
      awaitRequests(1);
      thread.interrupt();
    });
    assertEquals(Status.Code.CANCELLED, error.getCode());
    assertEquals(1, gateway.requests.size());
  }

  @Test
  void theContextsCancellationCancels() throws Exception {
    gateway.answers.addAll(List.of(busy(25_000), busy(25_000)));
    Context.CancellableContext context = Context.current().withCancellation();
    CallFuture<CreateResult> future = context.call(() -> client.createUserIntentAsync(person()));
    AtomicReference<UserIntentException> heard = new AtomicReference<>();
    Thread blocking = new Thread(() -> context.run(() -> heard.set(fails())));
    blocking.start();
    awaitRequests(2);
    context.cancel(null);
    blocking.join();
    assertEquals(Status.Code.CANCELLED, heard.get().getCode());
    UserIntentException error =
        UserIntentException.in(assertThrows(CompletionException.class, future::join)).orElseThrow();
    assertEquals(Status.Code.CANCELLED, error.getCode());
  }

  // -- the client
  // -------------------------------------------------------------------------------------------------------

  @Test
  void manyThreadsManyIds() throws Exception {
    ExecutorService pool = Executors.newFixedThreadPool(8);
    List<CompletableFuture<CreateResult>> calls = new ArrayList<>();
    for (int i = 0; i < 400; i++) {
      calls.add(i % 2 == 0 ? client.createUserIntentAsync(person())
                           : CompletableFuture.supplyAsync(() -> client.createUserIntent(person()), pool));
    }
    Set<String> ids = new HashSet<>();
    for (CompletableFuture<CreateResult> call : calls) {
      assertEquals("intent-" + call.join().getRequestId(), call.join().getUserIntentId());
      ids.add(call.join().getRequestId());
    }
    pool.shutdown();
    assertEquals(400, ids.size());
  }

  @Test
  void aBlockingCallNeedsNoThreadOfTheChannel() throws Exception {
    ExecutorService only = Executors.newSingleThreadExecutor();
    ManagedChannel narrow = io.grpc.Grpc.newChannelBuilder("127.0.0.1:1", io.grpc.InsecureChannelCredentials.create())
                                .executor(only)
                                .disableRetry()
                                .build();
    UserIntentClient blocking = UserIntentClient.builder(narrow).build();
    UserIntentException error =
        only.submit(
                () -> assertThrows(UserIntentException.class, () -> blocking.createUserIntent(person(), FIVE_SECONDS)))
            .get();
    assertTrue(error.isMaybeSent());
    narrow.shutdownNow();
    only.shutdown();
  }

  @Test
  void getsCreations() {
    assertEquals("some", client.getCreation("some").getRequestId());
    assertEquals("some", client.getCreationAsync("some").join().getRequestId());
    UserIntentException error = assertThrows(UserIntentException.class, () -> client.getCreation("none"));
    assertEquals("REQUEST_NOT_FOUND", error.getReason());
    assertEquals("none", error.getRequestId());
    assertThrows(IllegalArgumentException.class, () -> client.repeat(error));
  }

  @Test
  void closeLeavesTheCallersChannelAlone() {
    client.close();
    client.close();
    assertThrows(IllegalStateException.class, () -> client.createUserIntent(person()));
    assertThrows(IllegalStateException.class, () -> client.createUserIntentAsync(person()));
    assertFalse(channel.isShutdown());
  }

  @Test
  void closeEndsCallsOfTheClientsOwnChannel() throws Exception {
    Server tcp = io.grpc.Grpc.newServerBuilderForPort(0, io.grpc.InsecureServerCredentials.create())
                     .addService(gateway)
                     .build()
                     .start();
    client = UserIntentClient.builder("127.0.0.1:" + tcp.getPort()).plaintext().build();
    gateway.answers.addAll(List.of(busy(25_000), busy(25_000)));
    CallFuture<CreateResult> waiting = client.createUserIntentAsync(person());
    UserIntentException blocked = inThread(thread -> {
      awaitRequests(2);
      Thread.sleep(100); // until both wait; sooner would be right, too
      gateway.answers.add(FakeGateway.SILENCE);
      CallFuture<CreateResult> running = client.createUserIntentAsync(person());
      gateway.silent.await();
      client.close();
      UserIntentException error =
          UserIntentException.in(assertThrows(CompletionException.class, running::join)).orElseThrow();
      assertEquals(Status.Code.CANCELLED, error.getCode());
      assertTrue(error.isMaybeSent());
    });
    assertEquals(Status.Code.CANCELLED, blocked.getCode());
    UserIntentException error =
        UserIntentException.in(assertThrows(CompletionException.class, waiting::join)).orElseThrow();
    assertEquals(Status.Code.CANCELLED, error.getCode());
    tcp.shutdownNow();
  }

  @Test
  void closeIsNotMissedByACallThatIsAboutToWait() throws Exception {
    Server tcp = io.grpc.Grpc.newServerBuilderForPort(0, io.grpc.InsecureServerCredentials.create())
                     .addService(gateway)
                     .build()
                     .start();
    for (boolean async : new boolean[] {false, true}) {
      AtomicReference<UserIntentClient> closing = new AtomicReference<>();
      closing.set(UserIntentClient.builder("127.0.0.1:" + tcp.getPort())
                      .plaintext()
                      .jitter(() -> { // asked for between the error and the wait
                        closing.get().close();
                        return 0;
                      })
                      .build());
      gateway.answers.add(busy(25_000));
      long started = System.nanoTime();
      UserIntentException error = UserIntentException
                                      .in(assertThrows(RuntimeException.class,
                                          () -> {
                                            if (async) {
                                              closing.get().createUserIntentAsync(person()).join();
                                            }
                                            closing.get().createUserIntent(person());
                                          }))
                                      .orElseThrow();
      assertEquals(Status.Code.CANCELLED, error.getCode());
      assertTrue(error.getMessage().contains("closed"), error.getMessage());
      assertTrue(System.nanoTime() - started < 20_000_000_000L);
    }
    tcp.shutdownNow();
  }

  @Test
  void wrongSettingsAreRefused() {
    assertThrows(IllegalStateException.class, () -> UserIntentClient.builder("localhost:1").build());
    assertThrows(IllegalStateException.class,
        () -> UserIntentClient.builder("localhost:1").plaintext().tls(Tls.trustingSystem()).build());
    assertThrows(IllegalStateException.class, () -> UserIntentClient.builder(channel).plaintext().build());
    assertThrows(IllegalArgumentException.class, () -> CallSettings.defaults().withTimeout(Duration.ZERO));
    assertThrows(IllegalArgumentException.class, () -> CallSettings.defaults().withMaxTries(0));
    assertThrows(IllegalArgumentException.class, () -> UserIntentClient.builder(channel).maxTries(0));
    assertThrows(
        IllegalArgumentException.class, () -> UserIntentClient.builder(channel).timeout(Duration.ofSeconds(-1)));
  }

  @Test
  void theServiceConfigSuitsTheGeneratedStub() throws Exception {
    assertEquals(
        io.grpc.internal.JsonParser.parse(UserIntentClient.serviceConfigJson()), UserIntentClient.serviceConfig());
    String name = server.getListenSockets().get(0).toString();
    ManagedChannel bare = InProcessChannelBuilder.forName(name)
                              .enableRetry()
                              .defaultServiceConfig(UserIntentClient.serviceConfig())
                              .build();
    UserIntentServiceGrpc.UserIntentServiceBlockingStub stub = UserIntentServiceGrpc.newBlockingStub(bare);
    gateway.answers.add(Status.UNAVAILABLE.asRuntimeException());
    stub.createUserIntent(person());
    assertEquals(2, gateway.requests.size());
    gateway.answers.add(FakeGateway.error(Status.Code.UNAVAILABLE, pushback(), FakeGateway.info("DRAINING")));
    assertThrows(StatusRuntimeException.class, () -> stub.createUserIntent(person()));
    assertEquals(3, gateway.requests.size());
    bare.shutdownNow();
  }

  private static Metadata pushback() {
    Metadata trailers = new Metadata();
    trailers.put(FakeGateway.PUSHBACK, "-1");
    return trailers;
  }
}
