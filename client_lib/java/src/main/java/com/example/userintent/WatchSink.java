package com.example.userintent;

import com.google.protobuf.ByteString;

/** Where a {@link WatchSource} hands its events. One call at a time, in threads of the source's. */
interface WatchSink {
  void event(WatchEvent event);

  /** Nothing to tell, but a later watch may go on from here. */
  default void moved(ByteString resumeToken) {}

  /** The last call; there is none when the watch was closed by its reader. */
  void ended(RuntimeException error);
}
