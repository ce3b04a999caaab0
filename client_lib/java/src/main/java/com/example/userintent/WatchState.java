package com.example.userintent;

import com.example.userintent.v1.Creation;
import com.example.userintent.v1.WatchUserIntentsRequest;
import com.example.userintent.v1.WatchUserIntentsResponse;
import com.google.protobuf.ByteString;
import io.grpc.Deadline;
import io.grpc.Status;
import java.util.Collection;
import java.util.EnumSet;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.function.DoubleSupplier;

/**
 * What a watch knows between the messages of its streams: where to go on, which events its reader has not seen yet,
 * whether a stream that was lost is taken up again, and after which pause. One thread at a time, but for
 * {@link #streams} and what makes errors.
 */
final class WatchState {
  private static final Set<Status.Code> FINAL = EnumSet.of(Status.Code.INVALID_ARGUMENT, Status.Code.UNAUTHENTICATED,
      Status.Code.PERMISSION_DENIED, Status.Code.UNIMPLEMENTED, Status.Code.NOT_FOUND, Status.Code.FAILED_PRECONDITION);
  private static final Set<Status.Code> PASSING =
      EnumSet.of(Status.Code.OK, Status.Code.UNAVAILABLE, Status.Code.RESOURCE_EXHAUSTED);
  private static final long FIRST_PAUSE_NANOS = TimeUnit.MILLISECONDS.toNanos(100);
  private static final long LONGEST_PAUSE_NANOS = TimeUnit.SECONDS.toNanos(10);

  final Deadline deadline; // null: none
  private final String requestId; // empty unless the watch follows one request alone
  private final DoubleSupplier jitter; // in [0, 1)
  private final WatchUserIntentsRequest.Builder request;
  private boolean synced; // the reader knows
  private int lost; // streams without news since the last one with some
  private volatile int streams;
  private volatile String trouble = ""; // why the last stream was lost, while no other was heard

  WatchState(Collection<String> requestIds, ByteString resumeToken, Deadline deadline, DoubleSupplier jitter) {
    this.deadline = deadline;
    this.jitter = jitter;
    request = WatchUserIntentsRequest.newBuilder().addAllRequestIds(requestIds).setResumeToken(resumeToken);
    requestId = requestIds.size() == 1 ? requestIds.iterator().next() : "";
  }

  int streams() {
    return streams;
  }

  ByteString resumeToken() {
    return request.getResumeToken();
  }

  /** The request of the next stream. Throws when there is to be none. */
  WatchUserIntentsRequest begin() {
    if (deadline != null && deadline.isExpired()) {
      throw deadlineExceeded();
    }
    WatchUserIntentsRequest next = request.build();
    String problem = UserIntentClient.unsendable(next);
    if (problem != null) {
      throw error(Decoded.malformed(problem), null);
    }
    streams++;
    return next;
  }

  /** Null: nothing that the reader wants to hear. */
  WatchEvent heard(WatchUserIntentsResponse message) {
    trouble = "";
    WatchEvent.Kind kind = null;
    switch (message.getEventCase()) {
      case CHANGED:
        kind = WatchEvent.Kind.CHANGED;
        break;
      case SYNCED:
        kind = synced ? null : WatchEvent.Kind.SYNCED;
        synced = true;
        break;
      case RESET:
        kind = WatchEvent.Kind.RESET;
        synced = false;
        request.clearResumeToken(); // what it stood for is not kept any more
        break;
      default: // a heartbeat, or what only a newer gateway knows
        lost = 0;
        break;
    }
    if (!message.getResumeToken().isEmpty()) {
      request.setResumeToken(message.getResumeToken());
    }
    if (kind == null) {
      return null;
    }
    lost = 0;
    return new WatchEvent(
        kind, message.hasChanged() ? message.getChanged() : Creation.getDefaultInstance(), resumeToken());
  }

  /**
   * A stream has ended; of a clean end the code is OK. The nanoseconds to wait before the next. Throws: there is none.
   */
  long lost(Decoded end, Throwable cause) {
    boolean gatewayForbids = !end.reason.isEmpty() && end.retryAfter == null;
    if (FINAL.contains(end.code) || !PASSING.contains(end.code) && gatewayForbids) {
      throw error(end, cause);
    }
    if (end.code != Status.Code.OK && end.code != Status.Code.DEADLINE_EXCEEDED) {
      trouble = "; no stream came about: " + end.code + ", " + end.message;
    }
    // Anything up to the limit: streams that ended at one moment must not come back at one.
    double wait = Math.min(FIRST_PAUSE_NANOS << Math.min(lost, 10), LONGEST_PAUSE_NANOS) * jitter.getAsDouble();
    if (end.retryAfter != null) {
      wait = Math.max(wait, Tries.lengthen(end.retryAfter, jitter.getAsDouble()));
    }
    lost++;
    long left = deadline == null ? Long.MAX_VALUE : Math.max(deadline.timeRemaining(TimeUnit.NANOSECONDS), 0);
    return Math.min((long) wait, left);
  }

  UserIntentException deadlineExceeded() {
    return error(
        Decoded.local(Status.Code.DEADLINE_EXCEEDED, "the deadline was over" + trouble), NotRepeated.DEADLINE, null);
  }

  UserIntentException cancelled(String message, Throwable cause) {
    return error(Decoded.local(Status.Code.CANCELLED, message), cause);
  }

  UserIntentException error(Decoded decoded, Throwable cause) {
    return error(decoded, NotRepeated.NOT_RETRYABLE, cause);
  }

  private UserIntentException error(Decoded decoded, NotRepeated why, Throwable cause) {
    return UserIntentException.of(decoded.ofRead("", streams).last(why), requestId, streams, null, cause);
  }
}
