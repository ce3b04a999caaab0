package com.example.conformance;

import com.example.userintent.CallSettings;
import com.example.userintent.UserIntentClient;
import com.example.userintent.Watch;
import com.example.userintent.WatchEvent;
import com.google.protobuf.ByteString;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Flow;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Supplier;

/**
 * A watch of the library that runs, and its events in their order: either an iterator with a thread of its own, or a
 * subscription to a publisher.
 */
final class Watching {
  private static final long EVENT_SECONDS = 30;
  private static final long STOP_SECONDS = 15;
  private static final long END_SECONDS = 20;

  private final LinkedBlockingQueue<Outcome> events = new LinkedBlockingQueue<>();
  private final CompletableFuture<Throwable> end = new CompletableFuture<>(); // null in it: it was stopped
  private final Runnable stop;
  private final Supplier<ByteString> token;
  private volatile ByteString last = ByteString.EMPTY; // of a publisher: the token of the last event
  private volatile Flow.Subscription subscription;

  Watching(UserIntentClient client, List<String> requestIds, CallSettings settings, boolean async) {
    if (async) {
      client.watchPublisher(requestIds, settings).subscribe(new Subscriber());
      stop = () -> {
        subscription.cancel();
        end.complete(null);
      };
      token = () -> last;
    } else {
      Watch watch = client.watch(requestIds, settings);
      new Thread(() -> read(watch)).start();
      stop = watch::close;
      token = watch::getResumeToken;
    }
  }

  private void read(Watch watch) {
    try {
      while (watch.hasNext()) {
        events.add(Outcome.told(watch.next()));
      }
      end.complete(null);
    } catch (RuntimeException failure) {
      end.complete(failure);
    }
  }

  private final class Subscriber implements Flow.Subscriber<WatchEvent> {
    @Override
    public void onSubscribe(Flow.Subscription given) {
      subscription = given;
      given.request(Long.MAX_VALUE);
    }

    @Override
    public void onNext(WatchEvent event) {
      last = event.getResumeToken();
      events.add(Outcome.told(event));
    }

    @Override
    public void onError(Throwable failure) {
      end.complete(failure);
    }

    @Override
    public void onComplete() {
      end.complete(new IllegalStateException("a watch does not complete"));
    }
  }

  ByteString token() {
    return token.get();
  }

  /** The next event; null when none comes in time. */
  Outcome next() throws InterruptedException {
    return events.poll(EVENT_SECONDS, TimeUnit.SECONDS);
  }

  /** False when it does not end in time. */
  boolean stop() throws Exception {
    stop.run();
    return ended(STOP_SECONDS);
  }

  private boolean ended(long seconds) throws Exception {
    try {
      end.get(seconds, TimeUnit.SECONDS);
      return true;
    } catch (TimeoutException runs) {
      return false;
    }
  }

  /** Throws why it ended by itself; returns when it does not. */
  void throwEnd() throws Exception {
    if (ended(END_SECONDS) && end.get() instanceof RuntimeException) {
      throw (RuntimeException) end.get();
    }
  }
}
