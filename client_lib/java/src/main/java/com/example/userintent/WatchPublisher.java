package com.example.userintent;

import java.util.Objects;
import java.util.concurrent.Flow;
import java.util.function.Supplier;

/** Each subscription is a watch of its own, which begins with the first request. */
final class WatchPublisher implements Flow.Publisher<WatchEvent> {
  private final Supplier<WatchSource> watches;

  WatchPublisher(Supplier<WatchSource> watches) {
    this.watches = watches;
  }

  @Override
  public void subscribe(Flow.Subscriber<? super WatchEvent> subscriber) {
    Objects.requireNonNull(subscriber, "subscriber");
    WatchSource source = watches.get();
    Subscription subscription = new Subscription(source);
    subscriber.onSubscribe(subscription);
    // Not before onSubscribe has returned: a subscriber hears one thing at a time.
    source.start(new WatchSink() {
      @Override
      public void event(WatchEvent event) {
        subscriber.onNext(event);
      }

      @Override
      public void ended(RuntimeException error) {
        subscriber.onError(error);
      }
    });
    subscription.begin();
  }

  private static final class Subscription implements Flow.Subscription {
    private final WatchSource source;
    private long early; // asked for before the beginning
    private boolean begun;
    private boolean cancelled;
    private RuntimeException fault;

    Subscription(WatchSource source) {
      this.source = source;
    }

    void begin() {
      long wanted;
      synchronized (this) {
        begun = true;
        wanted = early;
      }
      if (cancelled) {
        source.close();
      } else if (fault != null) {
        source.fail(fault);
      } else if (wanted > 0) {
        source.request(wanted);
      }
    }

    @Override
    public void request(long n) {
      RuntimeException wrong = n > 0 ? null : new IllegalArgumentException("request wants a number above 0");
      synchronized (this) {
        if (!begun) {
          early = early + Math.max(n, 0) < 0 ? Long.MAX_VALUE : early + Math.max(n, 0);
          fault = fault == null ? wrong : fault;
          return;
        }
      }
      if (wrong == null) {
        source.request(n);
      } else {
        source.fail(wrong);
      }
    }

    @Override
    public void cancel() {
      synchronized (this) {
        cancelled = true;
        if (!begun) {
          return;
        }
      }
      source.close();
    }
  }
}
