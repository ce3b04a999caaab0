package com.example.userintent;

import static com.example.userintent.FakeGateway.SILENCE;
import static com.example.userintent.FakeGateway.changed;
import static com.example.userintent.FakeGateway.heartbeat;
import static com.example.userintent.FakeGateway.reset;
import static com.example.userintent.FakeGateway.synced;
import static com.example.userintent.v1.CreationState.CREATION_STATE_CREATED;
import static com.example.userintent.v1.CreationState.CREATION_STATE_UNKNOWN;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.example.userintent.FakeGateway.Script;
import com.google.protobuf.ByteString;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.inprocess.InProcessChannelBuilder;
import io.grpc.inprocess.InProcessServerBuilder;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.NoSuchElementException;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Flow;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** A watch over gRPC: what it asks for, how it goes on after a lost stream, and what ends it. */
@Timeout(60)
class WatchTest {
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

  private static String text(WatchEvent event) {
    return event.getKind() + " " + event.getResumeToken().toStringUtf8();
  }

  private static List<String> take(Watch watch, int count) {
    List<String> taken = new ArrayList<>();
    while (taken.size() < count) {
      assertTrue(watch.hasNext());
      assertTrue(watch.hasNext()); // as often as one likes
      WatchEvent event = watch.next();
      assertEquals(event.getResumeToken(), watch.getResumeToken());
      taken.add(text(event));
    }
    return taken;
  }

  private List<String> tokensAsked() {
    return gateway.watches.stream()
        .map(request -> request.getResumeToken().toStringUtf8())
        .collect(Collectors.toList());
  }

  private static Status.Code codeOf(Watch watch) {
    UserIntentException first = assertThrows(UserIntentException.class, watch::hasNext);
    assertSame(first, assertThrows(UserIntentException.class, watch::next)); // for good
    assertFalse(first.isMaybeSent());
    assertEquals("", first.getSent());
    return first.getCode();
  }

  @Test
  void givesTheEventsAndGoesOnWhereALostStreamStood() {
    gateway.streams.addAll(
        List.of(new Script(Status.UNAVAILABLE.asRuntimeException(), changed(CREATION_STATE_UNKNOWN, "1"), synced("2")),
            new Script(null, synced("3"), heartbeat("4")), // a clean end, after a heartbeat that moved the token
            new Script(Status.INTERNAL.asRuntimeException()),
            new Script(SILENCE, synced("5"), changed(CREATION_STATE_CREATED, "6"))));
    try (Watch watch = client.watch(List.of("R"))) {
      assertEquals(ByteString.EMPTY, watch.getResumeToken());
      assertEquals(List.of("CHANGED 1", "SYNCED 2", "CHANGED 6"), take(watch, 3));
    }
    assertEquals(List.of("", "2", "4", "4"), tokensAsked());
    gateway.watches.forEach(request -> assertEquals(List.of("R"), request.getRequestIdsList()));
  }

  @Test
  void beginsWithTheTokenThatItIsGiven() {
    gateway.streams.add(new Script(SILENCE, reset("1"), synced("2")));
    CallSettings on = CallSettings.defaults().withResumeToken(ByteString.copyFromUtf8("old"));
    try (Watch watch = client.watch(List.of(), on)) {
      assertEquals("old", watch.getResumeToken().toStringUtf8());
      assertEquals(List.of("RESET 1", "SYNCED 2"), take(watch, 2));
    }
    assertEquals(List.of("old"), tokensAsked());
  }

  @Test
  void anEventThatWaitsHasNotMovedTheToken() {
    gateway.streams.add(new Script(SILENCE, synced("1")));
    try (Watch watch = client.watch(List.of())) {
      assertTrue(watch.hasNext());
      assertEquals(ByteString.EMPTY, watch.getResumeToken());
    }
  }

  @Test
  void comesBackNotBeforeTheDelay() {
    gateway.streams.addAll(List.of(new Script(FakeGateway.busy(400)), new Script(SILENCE, synced("1"))));
    try (Watch watch = client.watch(List.of())) {
      take(watch, 1);
    }
    long pause = gateway.watchTimes.get(1) - gateway.watchTimes.get(0);
    assertTrue(pause >= TimeUnit.MILLISECONDS.toNanos(400), "" + pause);
  }

  @Test
  void anErrorThatNoRepeatHelpsEndsIt() {
    gateway.streams.add(new Script(FakeGateway.fieldInvalid(), synced("1")));
    try (Watch watch = client.watch(List.of())) {
      take(watch, 1);
      assertEquals(Status.Code.INVALID_ARGUMENT, codeOf(watch));
      assertEquals("FIELD_INVALID", assertThrows(InvalidRequestException.class, watch::next).getReason());
    }
    assertEquals(1, gateway.watches.size());
  }

  @Test
  void closeEndsItAtOnce() throws Exception {
    gateway.streams.add(new Script(SILENCE, synced("1")));
    Watch watch = client.watch(List.of());
    take(watch, 1);
    CompletableFuture<Boolean> waits = CompletableFuture.supplyAsync(watch::hasNext);
    Thread.sleep(200); // so that it waits, mostly
    watch.close();
    assertFalse(waits.get(10, TimeUnit.SECONDS));
    assertTrue(gateway.watchCancelled.tryAcquire(10, TimeUnit.SECONDS));
    assertThrows(NoSuchElementException.class, watch::next);
    watch.close();
  }

  @Test
  void closeEndsAPause() throws Exception {
    gateway.streams.add(new Script(FakeGateway.busy(3_600_000)));
    Watch watch = client.watch(List.of());
    CompletableFuture<Boolean> waits = CompletableFuture.supplyAsync(watch::hasNext);
    gateway.watchBegan.acquire();
    Thread.sleep(200);
    watch.close();
    assertFalse(waits.get(10, TimeUnit.SECONDS));
    assertEquals(1, gateway.watches.size());
  }

  @Test
  void anEventThatWaitsIsNotGivenAfterClose() {
    gateway.streams.add(new Script(SILENCE, synced("1")));
    Watch watch = client.watch(List.of());
    assertTrue(watch.hasNext());
    watch.close();
    assertFalse(watch.hasNext());
  }

  @Test
  void closedBeforeItBegan() {
    Watch watch = client.watch(List.of());
    watch.close();
    assertFalse(watch.hasNext());
    assertEquals(0, gateway.watches.size());
  }

  @Test
  void endsWithItsClient() {
    gateway.streams.add(new Script(SILENCE, synced("1")));
    Watch watch = client.watch(List.of());
    Watch never = client.watch(List.of());
    take(watch, 1);
    client.close();
    assertEquals(Status.Code.CANCELLED, codeOf(watch));
    assertEquals(Status.Code.CANCELLED, codeOf(never));
    assertThrows(IllegalStateException.class, () -> client.watch(List.of()));
  }

  @Test
  void endsWithAChannelThatIsShut() {
    Watch watch = client.watch(List.of());
    channel.shutdownNow();
    assertEquals(Status.Code.UNAVAILABLE, codeOf(watch));
  }

  @Test
  void endsAfterItsTimeout() {
    gateway.streams.add(new Script(SILENCE, synced("1")));
    try (Watch watch = client.watch(List.of(), CallSettings.defaults().withTimeout(Duration.ofMillis(300)))) {
      take(watch, 1);
      assertEquals(Status.Code.DEADLINE_EXCEEDED, codeOf(watch));
      assertEquals("the deadline was over", assertThrows(RetryLaterException.class, watch::next).getStatusMessage());
    }
  }

  @Test
  void endsWithItsContext() throws Exception {
    gateway.streams.add(new Script(SILENCE, synced("1")));
    Context.CancellableContext context = Context.current().withCancellation();
    Watch watch = context.call(() -> client.watch(List.of()));
    take(watch, 1);
    context.cancel(null);
    assertEquals(Status.Code.CANCELLED, codeOf(watch));
    assertTrue(gateway.watchCancelled.tryAcquire(10, TimeUnit.SECONDS));
  }

  @Test
  void anInterruptEndsIt() throws Exception {
    gateway.streams.add(new Script(SILENCE));
    Watch watch = client.watch(List.of());
    Thread.currentThread().interrupt();
    UserIntentException error = assertThrows(UserIntentException.class, watch::hasNext);
    assertTrue(Thread.interrupted());
    assertEquals(Status.Code.CANCELLED, error.getCode());
    assertEquals(Status.Code.CANCELLED, codeOf(watch));
  }

  @Test
  void aSilentStreamIsDead() {
    gateway.streams.addAll(
        List.of(new Script(SILENCE, synced("1")), new Script(SILENCE, changed(CREATION_STATE_CREATED, "2"))));
    UserIntentClient impatient = UserIntentClient.builder(channel).silence(Duration.ofMillis(300)).build();
    try (Watch watch = impatient.watch(List.of())) {
      assertEquals(List.of("SYNCED 1", "CHANGED 2"), take(watch, 2));
    }
    impatient.close();
    assertEquals(List.of("", "1"), tokensAsked());
  }

  @Test
  void thePauseOfAReaderIsNoSilence() throws Exception {
    gateway.streams.add(new Script(SILENCE, synced("1"), changed(CREATION_STATE_CREATED, "2")));
    UserIntentClient impatient = UserIntentClient.builder(channel).silence(Duration.ofMillis(200)).build();
    try (Watch watch = impatient.watch(List.of())) {
      take(watch, 1);
      Thread.sleep(600);
      assertEquals(List.of("CHANGED 2"), take(watch, 1));
    }
    impatient.close();
    assertEquals(1, gateway.watches.size());
  }

  /** Notes what it hears; asks for what the test says. */
  private static class Notes implements Flow.Subscriber<WatchEvent> {
    final BlockingQueue<Object> heard = new LinkedBlockingQueue<>();
    final long first;
    volatile Flow.Subscription subscription;

    Notes(long first) {
      this.first = first;
    }

    @Override
    public void onSubscribe(Flow.Subscription given) {
      subscription = given;
      if (first != 0) {
        given.request(first);
      }
    }

    @Override
    public void onNext(WatchEvent event) {
      heard.add(text(event));
    }

    @Override
    public void onError(Throwable error) {
      heard.add(error);
    }

    @Override
    public void onComplete() {
      heard.add("complete");
    }
  }

  @Test
  void aSubscriberHearsAsMuchAsItAsksFor() throws Exception {
    gateway.streams.addAll(
        List.of(new Script(Status.UNAVAILABLE.asRuntimeException(), synced("1"), changed(CREATION_STATE_UNKNOWN, "2")),
            new Script(SILENCE, changed(CREATION_STATE_UNKNOWN, "3"), changed(CREATION_STATE_CREATED, "4"))));
    Notes notes = new Notes(1);
    client.watchPublisher(List.of("R")).subscribe(notes);
    assertEquals("SYNCED 1", notes.heard.poll(10, TimeUnit.SECONDS));
    assertEquals(null, notes.heard.poll(300, TimeUnit.MILLISECONDS));
    notes.subscription.request(2);
    assertEquals("CHANGED 2", notes.heard.poll(10, TimeUnit.SECONDS));
    assertEquals("CHANGED 3", notes.heard.poll(10, TimeUnit.SECONDS));
    assertEquals(null, notes.heard.poll(300, TimeUnit.MILLISECONDS));
    notes.subscription.cancel();
    assertTrue(gateway.watchCancelled.tryAcquire(10, TimeUnit.SECONDS));
    notes.subscription.request(1);
    assertEquals(null, notes.heard.poll(300, TimeUnit.MILLISECONDS));
    assertEquals(List.of("", "2"), tokensAsked());
  }

  @Test
  void aSubscriberHearsOfTheEnd() throws Exception {
    gateway.streams.add(new Script(FakeGateway.fieldInvalid()));
    Notes notes = new Notes(Long.MAX_VALUE);
    client.watchPublisher(List.of()).subscribe(notes);
    assertEquals(InvalidRequestException.class, notes.heard.poll(10, TimeUnit.SECONDS).getClass());
    Notes wrong = new Notes(-1);
    client.watchPublisher(List.of()).subscribe(wrong);
    assertEquals(IllegalArgumentException.class, wrong.heard.poll(10, TimeUnit.SECONDS).getClass());
    Notes closed = new Notes(Long.MAX_VALUE);
    gateway.streams.add(new Script(SILENCE, synced("1")));
    Flow.Publisher<WatchEvent> publisher = client.watchPublisher(List.of());
    publisher.subscribe(closed);
    assertEquals("SYNCED 1", closed.heard.poll(10, TimeUnit.SECONDS));
    client.close();
    assertEquals(RetryLaterException.class, closed.heard.poll(10, TimeUnit.SECONDS).getClass());
    Notes late = new Notes(1);
    publisher.subscribe(late);
    assertEquals(RetryLaterException.class, late.heard.poll(10, TimeUnit.SECONDS).getClass());
  }

  @Test
  void aSubscriberMayCancelBeforeItBegan() {
    Flow.Publisher<WatchEvent> publisher = client.watchPublisher(List.of());
    publisher.subscribe(new Notes(0) {
      @Override
      public void onSubscribe(Flow.Subscription given) {
        given.request(1);
        given.cancel();
      }
    });
    assertThrows(NullPointerException.class, () -> publisher.subscribe(null));
    assertEquals(0, gateway.watches.size());
  }

  @Test
  void aSubscriberThatThrowsHearsNoMore() throws Exception {
    gateway.streams.add(new Script(SILENCE, synced("1"), changed(CREATION_STATE_CREATED, "2")));
    Notes notes = new Notes(Long.MAX_VALUE) {
      @Override
      public void onNext(WatchEvent event) {
        super.onNext(event);
        throw new IllegalStateException("a subscriber's fault");
      }
    };
    client.watchPublisher(List.of()).subscribe(notes);
    assertTrue(gateway.watchCancelled.tryAcquire(10, TimeUnit.SECONDS));
    assertEquals("SYNCED 1", notes.heard.poll(10, TimeUnit.SECONDS));
    assertEquals(null, notes.heard.poll(300, TimeUnit.MILLISECONDS));
    assertEquals(1, gateway.watches.size());
  }
}
