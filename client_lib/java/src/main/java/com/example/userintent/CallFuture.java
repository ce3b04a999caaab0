package com.example.userintent;

import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;

/**
 * A call that runs. It ends with the answer, or exceptionally with a {@link UserIntentException}.
 *
 * <p>{@link #cancel} ends the RPC, or the wait for a repeat. What was sent runs on at the gateway and is recorded under
 * the request_id: the {@link CancellationException} that {@code get} and {@code join} then throw has an
 * {@link OutcomeUnknownException} as its cause, for {@link UserIntentClient#repeat} (of a read, a
 * {@link RetryLaterException}); see {@link UserIntentException#in}. Completing it in any other way, by {@code
 * orTimeout} say, ends the RPC, too. Cancelling a stage that was derived from it does not.
 *
 * <p>Any thread may use it. Dependent stages without an executor run in a thread of gRPC's, which they must not block.
 *
 * @param <T> the answer
 */
public final class CallFuture<T> extends CompletableFuture<T> {
  private final Tries tries;
  private final String requestId;

  CallFuture(Tries tries, String requestId) {
    this.tries = tries;
    this.requestId = requestId;
  }

  /**
   * The request_id, known from the start.
   *
   * @return the caller's as it was given, or a new one; empty text for a read by the intent's id
   */
  public String getRequestId() {
    return requestId;
  }

  @Override
  public boolean cancel(boolean mayInterruptIfRunning) {
    CancellationException cancellation = new CancellationException("cancelled by the caller");
    cancellation.initCause(tries.cancelled("cancelled by the caller", null));
    return completeExceptionally(cancellation) || isCancelled();
  }

  @Override
  public <U> CompletableFuture<U> newIncompleteFuture() {
    return new CompletableFuture<>();
  }
}
