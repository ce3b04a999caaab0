package com.example.userintent;

import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * Reconnects a channel sooner than gRPC does, whose pauses grow to two minutes: a gateway that was restarted is back in
 * seconds. The pauses here are 0.2 s at first and 5 s at most. It has no thread of its own.
 */
final class Reconnecting {
  private static final double FIRST_MS = 200;
  private static final double LONGEST_MS = 5_000;
  private static final double GROWTH = 1.6;

  private final ManagedChannel channel;
  private final AtomicBoolean waits = new AtomicBoolean();

  private Reconnecting(ManagedChannel channel) {
    this.channel = channel;
  }

  static void watch(ManagedChannel channel) {
    new Reconnecting(channel).look();
  }

  private void look() {
    ConnectivityState state = channel.getState(false);
    if (state == ConnectivityState.SHUTDOWN) {
      return;
    }
    begin(state);
    channel.notifyWhenStateChanged(state, this::look);
  }

  private void begin(ConnectivityState state) {
    if (state == ConnectivityState.TRANSIENT_FAILURE && waits.compareAndSet(false, true)) {
      connectAfter(FIRST_MS);
    }
  }

  private void connectAfter(double ms) {
    double varied = ms * (0.8 + 0.4 * ThreadLocalRandom.current().nextDouble());
    CompletableFuture.delayedExecutor((long) varied, TimeUnit.MILLISECONDS).execute(() -> {
      if (channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE) {
        channel.resetConnectBackoff();
        connectAfter(Math.min(ms * GROWTH, LONGEST_MS));
      } else {
        waits.set(false);
        begin(channel.getState(false)); // it may have failed again before `waits` was false
      }
    });
  }
}
