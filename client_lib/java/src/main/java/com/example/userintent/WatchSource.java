package com.example.userintent;

/** What a watch does: over the network, or in a test's memory. Any thread may call anything. */
interface WatchSource {
  /** Once, before anything else. */
  void start(WatchSink sink);

  /** Allows for so many more events. Nothing is done before the first. */
  void request(long events);

  /** The reader wants to hear no more. */
  void close();

  /** Ends the watch with this error, unless it has ended. */
  void fail(RuntimeException error);

  /** Streams so far. */
  int streams();
}
