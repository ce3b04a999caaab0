package com.example.userintent;

/**
 * The token bucket of one client: automatic repeats stay few beside the calls that succeed, so they cannot keep an
 * outage going. Any thread may use it.
 */
final class RetryBudget {
  // In tenths of a token, so that the sums are exact.
  private static final int CAPACITY = 100;
  private static final int REPEAT = 10;
  private static final int SUCCESS = 1;

  private int tokens = CAPACITY;

  /** Pays for one repeat; false: there is not enough left for a whole one. */
  synchronized boolean take() {
    if (tokens < REPEAT) {
      return false;
    }
    tokens -= REPEAT;
    return true;
  }

  synchronized void succeeded() {
    tokens = Math.min(tokens + SUCCESS, CAPACITY);
  }
}
