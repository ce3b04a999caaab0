package com.example.userintent;

import com.example.userintent.v1.Creation;
import com.google.protobuf.ByteString;

/** One step of a {@link Watch}. It holds no personal data. Immutable; any thread may use it. */
public final class WatchEvent {
  /** What an event tells. A later version may tell more. */
  public enum Kind {
    /** {@link WatchEvent#getCreation}: the present state of a request. */
    CHANGED,
    /** The states from before the watch are through; what follows are changes. Once, and once more after each RESET. */
    SYNCED,
    /** The resume token was too old: the watch begins anew, with the present states. */
    RESET
  }

  private final Kind kind;
  private final Creation creation;
  private final ByteString resumeToken;

  WatchEvent(Kind kind, Creation creation, ByteString resumeToken) {
    this.kind = kind;
    this.creation = creation;
    this.resumeToken = resumeToken;
  }

  /**
   * What it tells.
   *
   * @return the kind
   */
  public Kind getKind() {
    return kind;
  }

  /**
   * A request, as {@link UserIntentClient#getCreation} tells it.
   *
   * @return its present state; empty of the other kinds
   */
  public Creation getCreation() {
    return creation;
  }

  /**
   * Where a later watch goes on after this event, also at another replica: {@link CallSettings#withResumeToken}.
   *
   * @return at most 256 bytes; empty while there is none, before SYNCED say
   */
  public ByteString getResumeToken() {
    return resumeToken;
  }

  /** One line for a log. */
  @Override
  public String toString() {
    return kind == Kind.CHANGED ? kind + " " + Redacted.of(creation) : kind.toString();
  }
}
