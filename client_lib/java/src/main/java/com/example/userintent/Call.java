package com.example.userintent;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.Context;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/**
 * One call of the library, with its tries: either {@link #block} in the caller's thread, or {@link #start} without one.
 * Made for one use. Cancellation, the caller's or that of its gRPC context, goes through {@link Context}, which gRPC
 * heeds at any moment of an RPC.
 */
final class Call<Q, P> {
  private final Channel channel;
  private final MethodDescriptor<Q, P> method;
  private final Q message;
  private final Tries tries;
  private final Set<Runnable> waiting; // of the client: what to run when it is closed

  Call(Channel channel, MethodDescriptor<Q, P> method, Q message, Tries tries, Set<Runnable> waiting) {
    this.channel = channel;
    this.method = method;
    this.message = message;
    this.tries = tries;
    this.waiting = waiting;
  }

  P block() {
    if (Thread.currentThread().isInterrupted()) {
      throw tries.notBegun(Status.Code.CANCELLED, "interrupted before the call began", null);
    }
    while (true) {
      tries.begin();
      try {
        P response = ClientCalls.blockingUnaryCall(channel, method, options(), message);
        tries.succeeded();
        return response;
      } catch (StatusRuntimeException failure) {
        sleep(tries.failed(failure));
      }
    }
  }

  private CallOptions options() {
    return CallOptions.DEFAULT.withDeadline(tries.deadline);
  }

  private void sleep(long nanos) {
    CountDownLatch over = new CountDownLatch(1);
    Runnable wake = over::countDown;
    Context context = Context.current();
    Context.CancellationListener cancelled = ignored -> wake.run();
    waiting.add(wake);
    context.addListener(cancelled, Runnable::run);
    if (tries.isClosed()) {
      wake.run(); // close() may have looked at `waiting` before
    }
    try {
      over.await(nanos, TimeUnit.NANOSECONDS);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
      throw tries.cancelled("interrupted while waiting to repeat", interrupted);
    } finally {
      context.removeListener(cancelled);
      waiting.remove(wake);
    }
    if (context.isCancelled()) {
      throw tries.cancelled("cancelled while waiting to repeat", context.cancellationCause());
    }
  }

  /** Begins the call, whose end completes the future; whatever else completes the future ends the call. */
  <R> void start(CallFuture<R> future, Function<P, R> result) {
    Context.CancellableContext context = Context.current().withCancellation();
    future.whenComplete((answer, failure) -> context.cancel(null));
    tryOnce(context, future, result);
  }

  private <R> void tryOnce(Context.CancellableContext context, CallFuture<R> future, Function<P, R> result) {
    if (future.isDone()) {
      return;
    }
    try {
      tries.begin();
      context.run(
          () -> ClientCalls.asyncUnaryCall(channel.newCall(method, options()), message, new StreamObserver<P>() {
            private P response;

            @Override
            public void onNext(P value) {
              response = value;
            }

            @Override
            public void onCompleted() {
              if (response == null) {
                onError(Status.INTERNAL.withDescription("an answer without a message").asRuntimeException());
                return;
              }
              tries.succeeded();
              future.complete(result.apply(response));
            }

            @Override
            public void onError(Throwable failure) {
              try {
                waitAndTry(tries.failed((StatusRuntimeException) failure), context, future, result);
              } catch (RuntimeException end) {
                future.completeExceptionally(end);
              }
            }
          }));
    } catch (RuntimeException end) {
      future.completeExceptionally(end);
    }
  }

  private <R> void waitAndTry(
      long nanos, Context.CancellableContext context, CallFuture<R> future, Function<P, R> result) {
    Runnable close = () -> future.completeExceptionally(tries.closed(null));
    Context.CancellationListener cancelled = ended
        -> future.completeExceptionally(
            tries.cancelled("cancelled while waiting to repeat", ended.cancellationCause()));
    waiting.add(close);
    context.addListener(cancelled, Runnable::run);
    if (tries.isClosed()) {
      close.run();
    }
    CompletableFuture.delayedExecutor(nanos, TimeUnit.NANOSECONDS).execute(() -> {
      context.removeListener(cancelled);
      waiting.remove(close);
      tryOnce(context, future, result);
    });
  }
}
