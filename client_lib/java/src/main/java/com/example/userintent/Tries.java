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
  private volatile int count;
  private Decoded last;

  Tries(String requestId, CreateUserIntentRequest request, Deadline deadline, int maxTries, RetryBudget budget,
      DoubleSupplier jitter, BooleanSupplier channelClosed) {
    this(requestId, request, deadline, maxTries, budget, jitter, channelClosed, false);
  }

  Tries(String requestId, CreateUserIntentRequest request, Deadline deadline, int maxTries, RetryBudget budget,
      DoubleSupplier jitter, BooleanSupplier channelClosed, boolean maybeBefore) {
    this.requestId = requestId;
    this.request = request;
    this.deadline = deadline;
    this.maxTries = maxTries;
    this.budget = budget;
    this.jitter = jitter;
    this.channelClosed = channelClosed;
    this.maybeBefore = maybeBefore;
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
      throw error(last, null); // the wait took longer than it should have
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
    if (decoded.retryAfter == null || count >= maxTries) {
      throw error(decoded, failure);
    }
    long wait = lengthen(decoded.retryAfter, jitter.getAsDouble());
    if (wait >= deadline.timeRemaining(TimeUnit.NANOSECONDS) || !budget.take()) {
      throw error(decoded, failure);
    }
    last = decoded;
    return wait;
  }

  UserIntentException cancelled(String message, Throwable cause) {
    return error(Decoded.local(Status.Code.CANCELLED, message), cause);
  }

  UserIntentException closed(Throwable cause) {
    return cancelled("the client was closed", cause);
  }

  /** The call ends before its first RPC: nothing left this process. */
  UserIntentException notBegun(Status.Code code, String message, Throwable cause) {
    return error(maybeBefore ? Decoded.local(code, message) : Decoded.notSent(code, message), cause);
  }

  UserIntentException malformed(String problem) {
    return error(Decoded.malformed(problem), null);
  }

  private UserIntentException error(Decoded decoded, Throwable cause) {
    return UserIntentException.of(decoded, requestId, count, request, cause);
  }

  /** The delay that the gateway asked for, times 1.00 to 1.25: many callers must not come back at one moment. */
  static long lengthen(Duration delay, double jitter) {
    return (long) (TimeUnit.NANOSECONDS.convert(delay) * (1 + 0.25 * jitter));
  }
}
