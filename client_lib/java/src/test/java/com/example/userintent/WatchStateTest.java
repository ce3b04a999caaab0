package com.example.userintent;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.example.userintent.v1.CreationState;
import com.example.userintent.v1.WatchUserIntentsResponse;
import com.google.protobuf.ByteString;
import io.grpc.Deadline;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** What a watch makes of messages and lost streams. */
class WatchStateTest {
  private double jitter = 1;

  private WatchState state(String... ids) {
    return new WatchState(List.of(ids), ByteString.EMPTY, null, () -> jitter);
  }

  private static Decoded end(Status.Code code) {
    return Decoded.local(code, "");
  }

  private static Decoded end(StatusRuntimeException error) {
    return Decoded.of(error.getStatus(), error.getTrailers());
  }

  private static long ms(long nanos) {
    return TimeUnit.NANOSECONDS.toMillis(nanos);
  }

  private static String text(ByteString token) {
    return token.toStringUtf8();
  }

  @Test
  void asksForWhatItIsGiven() {
    WatchState state = new WatchState(List.of("A", "B"), ByteString.copyFromUtf8("from"), null, () -> 0);
    assertEquals(List.of("A", "B"), state.begin().getRequestIdsList());
    assertEquals("from", text(state.begin().getResumeToken()));
    assertEquals(2, state.streams());
  }

  @Test
  void everyMessageMovesTheToken() {
    WatchState state = state();
    WatchEvent event = state.heard(FakeGateway.changed(CreationState.CREATION_STATE_UNKNOWN, "1"));
    assertEquals("1", text(event.getResumeToken()));
    assertEquals("R", event.getCreation().getRequestId());
    assertNull(state.heard(FakeGateway.heartbeat("2")));
    assertEquals("2", text(state.resumeToken()));
    assertNull(
        state.heard(WatchUserIntentsResponse.getDefaultInstance())); // an event that is not known, without a token
    assertEquals("2", text(state.resumeToken()));
    assertEquals(WatchEvent.Kind.RESET, state.heard(FakeGateway.reset("")).getKind());
    assertEquals("", text(state.resumeToken())); // the old one would only lead to another reset
  }

  @Test
  void syncedOnceAndOnceMoreAfterReset() {
    WatchState state = state();
    assertEquals(WatchEvent.Kind.SYNCED, state.heard(FakeGateway.synced("1")).getKind());
    assertNull(state.heard(FakeGateway.synced("2")));
    assertEquals("2", text(state.resumeToken()));
    state.heard(FakeGateway.reset("3"));
    assertEquals(WatchEvent.Kind.SYNCED, state.heard(FakeGateway.synced("4")).getKind());
    assertNull(state.heard(FakeGateway.synced("5")));
  }

  @Test
  void pausesGrowAndAreAnythingUpToTheLimit() {
    WatchState state = state();
    for (int expected : List.of(100, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000, 10000, 10000, 10000)) {
      assertEquals(expected, ms(state.lost(end(Status.Code.UNAVAILABLE), null)));
    }
    jitter = 0;
    assertEquals(0, state.lost(end(Status.Code.UNAVAILABLE), null));
  }

  @Test
  void newsMakeThePausesShortAgain() {
    WatchState state = state();
    assertEquals(100, ms(state.lost(end(Status.Code.OK), null)));
    assertEquals(200, ms(state.lost(end(Status.Code.OK), null)));
    state.heard(FakeGateway.synced(""));
    assertEquals(100, ms(state.lost(end(Status.Code.OK), null)));
    state.heard(
        FakeGateway.synced("")); // no news: streams that all break after it must not be begun ten times a second
    assertEquals(200, ms(state.lost(end(Status.Code.OK), null)));
    state.heard(FakeGateway.heartbeat(""));
    assertEquals(100, ms(state.lost(end(Status.Code.OK), null)));
  }

  @Test
  void notBeforeTheDelayThatTheGatewayAsksFor() {
    WatchState state = state();
    assertEquals(25000, ms(state.lost(end(FakeGateway.busy(20000)), null)));
    jitter = 0;
    assertEquals(20000, ms(state.lost(end(FakeGateway.busy(20000)), null)));
  }

  @ParameterizedTest
  @EnumSource(value = Status.Code.class,
      names = {"INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "NOT_FOUND",
          "FAILED_PRECONDITION"})
  void
  whatEndsAWatch(Status.Code code) {
    WatchState state = state("R");
    state.begin();
    UserIntentException last = assertThrows(UserIntentException.class, () -> state.lost(end(code), null));
    assertEquals(code, last.getCode());
    assertFalse(last.isMaybeSent());
    assertEquals("R", last.getRequestId());
    assertEquals(1, last.getTries());
  }

  @Test
  void theGatewaysOwnWordThatARepeatIsOfNoUse() {
    StatusRuntimeException bug =
        FakeGateway.error(Status.Code.INTERNAL, new Metadata(), FakeGateway.info("INTERNAL", "recovery", "STOP"));
    assertThrows(StopException.class, () -> state().lost(end(bug), null));
    StatusRuntimeException passes =
        FakeGateway.error(Status.Code.INTERNAL, new Metadata(), FakeGateway.info("NEWER"), FakeGateway.retry(10));
    assertTrue(state().lost(end(passes), null) > 0);
    StatusRuntimeException draining =
        FakeGateway.error(Status.Code.UNAVAILABLE, new Metadata(), FakeGateway.info("DRAINING"));
    assertTrue(state().lost(end(draining), null) > 0);
  }

  @ParameterizedTest
  @EnumSource(value = Status.Code.class,
      names = {"OK", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN", "CANCELLED", "ABORTED",
          "DEADLINE_EXCEEDED", "DATA_LOSS"})
  void
  whatDoesNot(Status.Code code) {
    assertEquals(100, ms(state().lost(end(code), null)));
  }

  @Test
  void theDeadlineEndsPausesAndTheWatch() {
    long[] now = {0};
    Deadline deadline = Deadline.after(3, TimeUnit.SECONDS, new Deadline.Ticker() {
      @Override
      public long nanoTime() {
        return now[0];
      }
    });
    WatchState state = new WatchState(List.of("R"), ByteString.EMPTY, deadline, () -> 1);
    state.begin();
    now[0] = TimeUnit.SECONDS.toNanos(2);
    assertEquals(1000, ms(state.lost(end(FakeGateway.busy(20000)), null)));
    now[0] = TimeUnit.SECONDS.toNanos(3);
    UserIntentException over = assertThrows(RetryLaterException.class, state::begin);
    assertEquals(NotRepeated.DEADLINE, over.getNotRepeated());
    assertEquals("DEADLINE_EXCEEDED: the deadline was over; no stream came about: UNAVAILABLE, told (RETRY_SAME_ID, "
            + "request_id R, tries 1)",
        over.getMessage());
    state.heard(FakeGateway.heartbeat(""));
    state.lost(end(Status.Code.DEADLINE_EXCEEDED), null);
    assertEquals("the deadline was over", assertThrows(RetryLaterException.class, state::begin).getStatusMessage());
  }

  @Test
  void whatCannotBeSentIsNot() {
    for (String bad : List.of("x".repeat(70000), "\ud800")) {
      UserIntentException refused = assertThrows(InvalidRequestException.class, () -> state(bad).begin());
      assertEquals("MALFORMED_REQUEST", refused.getReason());
      assertEquals("", refused.getSent());
      assertEquals(0, refused.getTries());
    }
  }

  @Test
  void anErrorOfAWatchOfManyNamesNone() {
    UserIntentException cancelled = state("A", "B").cancelled("the watch was cancelled", null);
    assertEquals("CANCELLED: the watch was cancelled (RETRY_SAME_ID, tries 0)", cancelled.getMessage());
    assertInstanceOf(RetryLaterException.class, cancelled);
  }
}
