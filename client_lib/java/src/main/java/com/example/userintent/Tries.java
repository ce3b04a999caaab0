package com.example.userintent;

import com.example.userintent.v1.CreateUserIntentRequest;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.function.DoubleSupplier;

/**
 * The tries of one call: how many there were, whether and when there is to be another, and the error when there is
 * none. It belongs to the call, whose tries follow one another; {@link #cancelled} may be called by any thread.
 */
final class Tries {
  final Deadline deadline; // of all tries together
  private final String requestId;
  private final CreateUserIntentRequest request; // null: not a creation
  private final int maxTries;
  private final RetryBudget budget;
  private final DoubleSupplier jitter; // in [0, 1)
  private final BooleanSupplier channelClosed;
  private final boolean maybeBefore; // it repeats a call of which nobody knows whether it was sent
  private final IntentKey key; // of a read; null: not a read
  private volatile int count;
  private Decoded last;

  Tries(String requestId, CreateUserIntentRequest request, Deadline deadline, int maxTries, RetryBudget budget,
      DoubleSupplier jitter, BooleanSupplier channelClosed) {
    this(requestId, request, deadline, maxTries, budget, jitter, channelClosed, false, null);
  }

  Tries(String requestId, CreateUserIntentRequest request, Deadline deadline, int maxTries, RetryBudget budget,
      DoubleSupplier jitter, BooleanSupplier channelClosed, boolean maybeBefore, IntentKey key) {
    this.requestId = requestId;
    this.request = request;
    this.deadline = deadline;
    this.maxTries = maxTries;
    this.budget = budget;
    this.jitter = jitter;
    this.channelClosed = channelClosed;
    this.maybeBefore = maybeBefore;
    this.key = key;
  }

  int count() {
    return count;
  }

  /** The channel was closed, so that no try can end well any more. */
  boolean isClosed() {
    return channelClosed.getAsBoolean();
  }

  void begin() {
    if (last != null && isClosed()) {
      throw closed(null);
    }
    if (last != null && deadline.isExpired()) {
      throw error(last, NotRepeated.DEADLINE, null); // the wait took longer than it should have
    }
    if (last == null && Context.current().isCancelled() && !deadline.isExpired()) {
      throw notBegun(Status.Code.CANCELLED, "cancelled before the call began", Context.current().cancellationCause());
    }
    if (last == null && deadline.isExpired()) {
      throw notBegun(Status.Code.DEADLINE_EXCEEDED, "the deadline was over before the call began", null);
    }
    count++;
  }

  void succeeded() {
    budget.succeeded();
  }

  /** The nanoseconds to wait before the next try. Throws when there is to be none. */
  long failed(StatusRuntimeException failure) {
    Decoded decoded = Decoded.of(failure.getStatus(), failure.getTrailers());
    // gRPC says UNAVAILABLE of a call whose channel was shut down.
    if (decoded.reason.isEmpty() && decoded.code == Status.Code.UNAVAILABLE && isClosed()) {
      throw closed(failure);
    }
    decoded = ofKind(decoded);
    if (decoded.retryAfter == null) {
      throw error(decoded, NotRepeated.NOT_RETRYABLE, failure);
    }
    if (count >= maxTries) {
      throw error(decoded, NotRepeated.MAX_TRIES, failure);
    }
    long wait = lengthen(decoded.retryAfter, jitter.getAsDouble());
    if (wait >= deadline.timeRemaining(TimeUnit.NANOSECONDS)) {
      throw error(decoded, NotRepeated.DEADLINE, failure);
    }
    if (!budget.take()) {
      throw error(decoded, NotRepeated.BUDGET, failure);
    }
    last = decoded;
    return wait;
  }

  UserIntentException cancelled(String message, Throwable cause) {
    return error(Decoded.local(Status.Code.CANCELLED, message), NotRepeated.NOT_RETRYABLE, cause);
  }

  UserIntentException closed(Throwable cause) {
    return cancelled("the client was closed", cause);
  }

  /** The call ends before its first RPC: nothing left this process. */
  UserIntentException notBegun(Status.Code code, String message, Throwable cause) {
    return error(
        maybeBefore ? Decoded.local(code, message) : Decoded.notSent(code, message), NotRepeated.NOT_RETRYABLE, cause);
  }

  UserIntentException malformed(String problem) {
    return error(Decoded.malformed(problem), NotRepeated.NOT_RETRYABLE, null);
  }

  private UserIntentException error(Decoded decoded, NotRepeated why, Throwable cause) {
    return UserIntentException.of(ofKind(decoded).last(why), requestId, count, request, cause);
  }

  private Decoded ofKind(Decoded decoded) {
    return key == null || decoded.read ? decoded : decoded.ofRead(key.userIntentId, count);
  }

  /** The delay that the gateway asked for, times 1.00 to 1.25: many callers must not come back at one moment. */
  static long lengthen(Duration delay, double jitter) {
    return (long) (TimeUnit.NANOSECONDS.convert(delay) * (1 + 0.25 * jitter));
  }
}
