package com.example.userintent;

import com.example.userintent.v1.UserIntentServiceGrpc;
import com.example.userintent.v1.WatchUserIntentsRequest;
import com.example.userintent.v1.WatchUserIntentsResponse;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

/**
 * A watch over the network: one stream after the other. A message is asked of gRPC only while the reader wants an
 * event. It keeps no thread; events come in gRPC's.
 */
final class WatchRun implements WatchSource {
  /**
   * The gateway is heard every 20 seconds. A stream that is silent for so long is dead, whatever its connection says.
   */
  static final long SILENCE_NANOS = TimeUnit.SECONDS.toNanos(60);

  private final Channel channel;
  private final WatchState state; // of the thread that opens a stream, or is its listener's
  private final Set<WatchRun> running; // of the client
  private final BooleanSupplier clientClosed;
  private final long silenceNanos;
  private final Context context = Context.current();
  private final Context.CancellationListener contextListener = this::contextEnded;
  private final Object lock = new Object();
  // Guarded by the lock.
  private WatchSink sink;
  private long demand; // events that the reader still wants
  private boolean busy; // a stream runs, or one is to come without the reader's doing
  private Stream stream;
  private boolean delivering;
  private boolean ended;
  private RuntimeException end; // to be delivered, after the event that is
  private CompletableFuture<Void> timer; // of a pause, or of a silence

  WatchRun(Channel channel, WatchState state, Set<WatchRun> running, BooleanSupplier clientClosed, long silenceNanos) {
    this.channel = channel;
    this.state = state;
    this.running = running;
    this.clientClosed = clientClosed;
    this.silenceNanos = silenceNanos;
  }

  @Override
  public void start(WatchSink reader) {
    synchronized (lock) {
      sink = reader;
    }
    running.add(this);
    context.addListener(contextListener, Runnable::run);
  }

  @Override
  public void request(long events) {
    Stream idle = null;
    boolean first;
    synchronized (lock) {
      demand = demand + events < 0 ? Long.MAX_VALUE : demand + events;
      first = !ended && !busy;
      busy = true;
      if (stream != null && stream.started && !stream.asked) {
        idle = stream;
        idle.asked = true;
      }
    }
    if (first) {
      open();
    } else if (idle != null) {
      idle.ask();
    }
  }

  @Override
  public void close() {
    finish(null);
  }

  @Override
  public void fail(RuntimeException error) {
    finish(error);
  }

  @Override
  public int streams() {
    return state.streams();
  }

  /** For the client that is closed. */
  void clientClosed() {
    finish(state.cancelled("the client was closed", null));
  }

  private void contextEnded(Context ofWatch) {
    finish(state.deadline != null && state.deadline.isExpired()
            ? state.deadlineExceeded()
            : state.cancelled("the watch was cancelled", ofWatch.cancellationCause()));
  }

  private void open() {
    if (clientClosed.getAsBoolean()) { // it may have looked at `running` before
      clientClosed();
      return;
    }
    WatchUserIntentsRequest request;
    try {
      request = state.begin();
    } catch (UserIntentException refused) {
      finish(refused);
      return;
    }
    if (channel instanceof ManagedChannel && ((ManagedChannel) channel).isShutdown()) {
      finish(state.error(Decoded.local(Status.Code.UNAVAILABLE, "the channel was shut down"), null));
      return;
    }
    context.run(() -> {
      Stream next = new Stream();
      synchronized (lock) {
        if (ended) {
          return;
        }
        stream = next;
      }
      next.begin(request);
    });
  }

  private void pauseOver() {
    synchronized (lock) {
      if (ended) {
        return;
      }
      busy = demand > 0;
      if (!busy) {
        return; // the next request opens a stream
      }
    }
    open();
  }

  /** error: null when the reader knows. */
  private void finish(RuntimeException error) {
    Stream last;
    synchronized (lock) {
      if (ended) {
        return;
      }
      ended = true;
      last = stream != null && stream.started ? stream : null;
      stream = null;
      stop(timer);
      if (delivering) {
        end = error;
      }
    }
    running.remove(this);
    context.removeListener(contextListener);
    if (last != null) {
      last.call.cancel("the watch has ended", null);
    }
    synchronized (lock) {
      if (error == null || end != null) {
        return;
      }
    }
    sink.ended(error);
  }

  private static void stop(CompletableFuture<Void> timer) {
    if (timer != null) {
      timer.cancel(false);
    }
  }

  /** Runs it after this time, unless another one is set, or the watch ends, before. */
  private void after(long nanos, Runnable then) {
    CompletableFuture<Void> next = new CompletableFuture<>();
    synchronized (lock) {
      stop(timer);
      timer = next;
      if (ended) {
        return;
      }
    }
    next.thenRunAsync(then);
    next.completeOnTimeout(null, nanos, TimeUnit.NANOSECONDS);
  }

  private final class Stream extends ClientCall.Listener<WatchUserIntentsResponse> {
    final ClientCall<WatchUserIntentsRequest, WatchUserIntentsResponse> call =
        channel.newCall(UserIntentServiceGrpc.getWatchUserIntentsMethod(),
            state.deadline == null ? CallOptions.DEFAULT : CallOptions.DEFAULT.withDeadline(state.deadline));
    // Guarded by the lock.
    boolean started;
    boolean asked = true; // for a message that has not been dealt with

    void begin(WatchUserIntentsRequest request) {
      call.start(this, new Metadata());
      call.sendMessage(request);
      call.halfClose();
      synchronized (lock) {
        started = true;
        if (ended) { // it could not be cancelled before
          call.cancel("the watch has ended", null);
          return;
        }
      }
      ask();
    }

    void ask() {
      synchronized (lock) {
        if (stream != this) {
          return; // it has closed by itself, and the timer is that of the pause after it
        }
        after(silenceNanos, () -> call.cancel("the stream was silent", null));
      }
      call.request(1);
    }

    @Override
    public void onMessage(WatchUserIntentsResponse message) {
      synchronized (lock) {
        if (ended) {
          return;
        }
        stop(timer);
      }
      WatchEvent event = state.heard(message);
      if (event == null) {
        sink.moved(state.resumeToken());
        ask();
        return;
      }
      synchronized (lock) {
        if (ended) {
          return;
        }
        demand--;
        delivering = true;
      }
      try {
        sink.event(event);
      } catch (RuntimeException readersFault) {
        close();
        throw readersFault;
      } finally {
        delivered();
      }
    }

    private void delivered() {
      RuntimeException error;
      synchronized (lock) {
        delivering = false;
        error = end;
        asked = !ended && demand > 0;
      }
      if (error != null) {
        sink.ended(error);
      } else if (asked) {
        ask();
      }
    }

    @Override
    public void onClose(Status status, Metadata trailers) {
      synchronized (lock) {
        if (ended) {
          return;
        }
        stream = null;
        stop(timer);
      }
      try {
        long nanos =
            state.lost(Decoded.of(status, trailers), status.isOk() ? null : status.asRuntimeException(trailers));
        after(nanos, WatchRun.this::pauseOver);
      } catch (UserIntentException last) {
        finish(last);
      }
    }
  }
}
