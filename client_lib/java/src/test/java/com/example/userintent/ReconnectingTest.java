package com.example.userintent;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
class ReconnectingTest {
  /** A channel that is in the state it is told to be in. */
  private static final class Told extends ManagedChannel {
    final Semaphore connects = new Semaphore(0);
    private ConnectivityState state = ConnectivityState.IDLE;
    private Runnable listener;
    private boolean failsBehindTheNextLook;

    synchronized void become(ConnectivityState next) {
      state = next;
      Runnable told = listener;
      listener = null;
      told.run();
    }

    @Override
    public synchronized ConnectivityState getState(boolean requestConnection) {
      if (failsBehindTheNextLook) {
        failsBehindTheNextLook = false;
        become(ConnectivityState.CONNECTING);
        become(ConnectivityState.TRANSIENT_FAILURE);
        return ConnectivityState.CONNECTING;
      }
      return state;
    }

    /** Who looks next is told CONNECTING, which is no longer true when it hears it. */
    synchronized void failBehindTheNextLook() {
      failsBehindTheNextLook = true;
    }

    @Override
    public synchronized void notifyWhenStateChanged(ConnectivityState source, Runnable callback) {
      listener = callback;
    }

    @Override
    public void resetConnectBackoff() {
      connects.release();
    }

    @Override
    public <Q, P> ClientCall<Q, P> newCall(MethodDescriptor<Q, P> method, CallOptions options) {
      throw new UnsupportedOperationException();
    }

    @Override
    public String authority() {
      return "";
    }

    @Override
    public ManagedChannel shutdown() {
      return this;
    }

    @Override
    public ManagedChannel shutdownNow() {
      return this;
    }

    @Override
    public boolean isShutdown() {
      return false;
    }

    @Override
    public boolean isTerminated() {
      return false;
    }

    @Override
    public boolean awaitTermination(long timeout, TimeUnit unit) {
      return false;
    }
  }

  @Test
  void aFailedChannelConnectsAgainUntilItWorks() throws Exception {
    Told channel = new Told();
    Reconnecting.watch(channel);
    channel.become(ConnectivityState.CONNECTING);
    assertEquals(0, channel.connects.availablePermits());
    long failed = System.nanoTime();
    channel.become(ConnectivityState.TRANSIENT_FAILURE);
    channel.connects.acquire(4); // after 0.2 s, 0.32 s, 0.51 s and 0.82 s, less a fifth at most
    assertTrue(System.nanoTime() - failed >= 1_400_000_000L);
    channel.become(ConnectivityState.READY);
    Thread.sleep(2_000); // longer than the next pause
    assertEquals(0, channel.connects.availablePermits());
    channel.become(ConnectivityState.TRANSIENT_FAILURE);
    channel.connects.acquire(1);
    channel.become(ConnectivityState.SHUTDOWN);
  }

  @Test
  void aFailureJustAsTheLastPauseEndsIsSeen() throws Exception {
    Told channel = new Told();
    Reconnecting.watch(channel);
    channel.become(ConnectivityState.TRANSIENT_FAILURE);
    channel.connects.acquire(1);
    channel.failBehindTheNextLook();
    channel.connects.acquire(1);
    channel.become(ConnectivityState.SHUTDOWN);
  }
}
