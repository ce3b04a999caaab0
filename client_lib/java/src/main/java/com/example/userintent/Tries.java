package com.example.userintent;

import com.example.userintent.v1.CreateUserIntentRequest;
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
  private volatile int count;
  private Decoded last;

  Tries(String requestId, CreateUserIntentRequest request, Deadline deadline, int maxTries, RetryBudget budget,
      DoubleSupplier jitter, BooleanSupplier channelClosed) {
    this.requestId = requestId;
    this.request = request;
    this.deadline = deadline;
    this.maxTries = maxTries;
    this.budget = budget;
    this.jitter = jitter;
    this.channelClosed = channelClosed;
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

  UserIntentException malformed() {
    return error(Decoded.malformed(), null);
  }

  private UserIntentException error(Decoded decoded, Throwable cause) {
    return UserIntentException.of(decoded, requestId, count, request, cause);
  }

  /** The delay that the gateway asked for, times 1.00 to 1.25: many callers must not come back at one moment. */
  static long lengthen(Duration delay, double jitter) {
    return (long) (TimeUnit.NANOSECONDS.convert(delay) * (1 + 0.25 * jitter));
  }
}
