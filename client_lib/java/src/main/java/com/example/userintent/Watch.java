package com.example.userintent;

import com.google.protobuf.ByteString;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.function.Function;

/**
 * What changes about the caller's own requests, as it happens: see {@link UserIntentClient#watch}.
 *
 * <pre>{@code
 * try (Watch watch = client.watch(List.of())) {
 *   while (watch.hasNext()) {
 *     WatchEvent event = watch.next();
 *   }
 * }
 * }</pre>
 *
 * <p>A lost stream is taken up again where it stood, with pauses that grow to 10 seconds, for as long as it takes.
 * Events come at least once, in the order of the gateway's record; steps in between may be left out, the last state of
 * a request never is.
 *
 * <p>One thread at a time reads; {@link #close} and {@link #getResumeToken} are for any thread. No thread is kept for
 * it.
 */
public final class Watch implements Iterator<WatchEvent>, AutoCloseable {
  private final WatchSource source;
  private final Function<InterruptedException, RuntimeException> interrupted;
  private final Object lock = new Object();
  // Guarded by the lock.
  private ByteString resumeToken;
  private WatchEvent next;
  private boolean asked;
  private boolean closed;
  private RuntimeException end;

  Watch(WatchSource source, ByteString resumeToken, Function<InterruptedException, RuntimeException> interrupted) {
    this.source = source;
    this.resumeToken = resumeToken;
    this.interrupted = interrupted;
    source.start(new WatchSink() {
      @Override
      public void event(WatchEvent event) {
        synchronized (lock) {
          next = event;
          lock.notifyAll();
        }
      }

      @Override
      public void moved(ByteString token) {
        synchronized (lock) {
          Watch.this.resumeToken = token;
        }
      }

      @Override
      public void ended(RuntimeException error) {
        synchronized (lock) {
          end = error;
          lock.notifyAll();
        }
      }
    });
  }

  /**
   * Waits for the next event.
   *
   * @return false when the watch was closed
   * @throws UserIntentException why the watch ended, for good: an error that no repeat helps, the end of its timeout or
   *     of its gRPC Context, an interrupt, the end of the client
   */
  @Override
  public boolean hasNext() {
    boolean ask;
    synchronized (lock) {
      ask = !asked && !closed;
      asked = true;
    }
    if (ask) {
      source.request(1);
    }
    synchronized (lock) {
      try {
        while (next == null && end == null && !closed) {
          lock.wait();
        }
      } catch (InterruptedException interruption) {
        Thread.currentThread().interrupt();
        end = interrupted.apply(interruption);
        source.close();
      }
      if (end != null && next == null && !closed) {
        throw end;
      }
      return !closed;
    }
  }

  /**
   * The next event; waits for it.
   *
   * @return what happened
   * @throws UserIntentException as {@link #hasNext}
   * @throws NoSuchElementException when the watch was closed
   */
  @Override
  public WatchEvent next() {
    if (!hasNext()) {
      throw new NoSuchElementException("the watch was closed");
    }
    synchronized (lock) {
      if (next == null) {
        throw new NoSuchElementException("the watch was closed");
      }
      WatchEvent event = next;
      next = null;
      asked = false;
      resumeToken = event.getResumeToken();
      return event;
    }
  }

  /**
   * Where the watch stands, for {@link CallSettings#withResumeToken}: it moves with every event that {@link #next}
   * returns, and while {@link #hasNext} waits.
   *
   * @return empty before the first
   */
  public ByteString getResumeToken() {
    synchronized (lock) {
      return resumeToken;
    }
  }

  /** Ends the watch: {@link #hasNext} returns false at once, also when it waits. Any number of times. */
  @Override
  public void close() {
    synchronized (lock) {
      closed = true;
      next = null;
      lock.notifyAll();
    }
    source.close();
  }
}
