package com.example.userintent;

import com.example.userintent.v1.Creation;
import com.google.protobuf.ByteString;
import io.grpc.Status;
import java.util.ArrayDeque;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.function.Function;
import java.util.function.Supplier;

/** A watch of a {@link FakeClient}: what its log of changes tells. Events come in threads of the common pool. */
final class FakeWatch implements WatchSource {
  /** A part of a log: the present states of what changed after a position, and the position that they stand for. */
  static final class Slice {
    final List<Creation> states;
    final int position;

    Slice(List<Creation> states, int position) {
      this.states = states;
      this.position = position;
    }
  }

  private final Supplier<UserIntentException> failure; // null: there is none
  private final Function<Integer, Slice> after; // a position below 0: the beginning
  private final String requestId; // for errors
  private int position;
  private WatchSink sink;
  private long demand;
  private boolean begun;
  private boolean delivering;
  private boolean ended;
  private RuntimeException end;
  private final ArrayDeque<WatchEvent> ready = new ArrayDeque<>();

  FakeWatch(Supplier<UserIntentException> failure, Function<Integer, Slice> after, ByteString token, String requestId) {
    this.failure = failure;
    this.after = after;
    this.requestId = requestId;
    position = token.isEmpty() ? -1 : Integer.parseInt(token.toStringUtf8());
  }

  @Override
  public synchronized void start(WatchSink reader) {
    sink = reader;
  }

  @Override
  public synchronized void request(long events) {
    demand = demand + events < 0 ? Long.MAX_VALUE : demand + events;
    look();
  }

  @Override
  public synchronized void close() {
    ended = true;
  }

  @Override
  public synchronized void fail(RuntimeException error) {
    end = end == null ? error : end;
    look();
  }

  @Override
  public int streams() {
    return 1;
  }

  void timeIsOver() {
    fail(failed(Status.Code.DEADLINE_EXCEEDED, "the deadline was over"));
  }

  UserIntentException failed(Status.Code code, String message) {
    Decoded decoded = Decoded.local(code, message).ofRead("", 1);
    return UserIntentException.of(decoded.last(NotRepeated.NOT_RETRYABLE), requestId, 1, null, null);
  }

  /** Something may have changed. */
  void look() {
    CompletableFuture.runAsync(this::deliver);
  }

  private void deliver() {
    synchronized (this) {
      if (delivering || sink == null) {
        return; // whoever delivers looks once more
      }
      delivering = true;
    }
    for (Runnable next = next(); next != null; next = next()) {
      next.run();
    }
  }

  private synchronized Runnable next() {
    if (!ended && end == null && demand > 0 && ready.isEmpty()) {
      fill();
    }
    if (!ended && end != null) {
      ended = true;
      return () -> sink.ended(end);
    }
    if (ended || demand == 0 || ready.isEmpty()) {
      delivering = false;
      return null;
    }
    demand--;
    WatchEvent event = ready.poll();
    return () -> sink.event(event);
  }

  private void fill() {
    boolean first = !begun;
    begun = true;
    end = first ? failure.get() : null;
    if (end != null) {
      return;
    }
    ByteString before = position < 0 ? ByteString.EMPTY : token();
    Slice slice = after.apply(position);
    position = slice.position;
    for (Creation state : slice.states) {
      boolean last = !first && ready.size() + 1 == slice.states.size();
      ready.add(new WatchEvent(WatchEvent.Kind.CHANGED, state, last ? token() : before));
    }
    if (first) {
      ready.add(new WatchEvent(WatchEvent.Kind.SYNCED, Creation.getDefaultInstance(), token()));
    }
  }

  private ByteString token() {
    return ByteString.copyFromUtf8(Integer.toString(position));
  }
}
