package com.example.userintent;

/** Why the library made no further try of a call that failed. */
public enum NotRepeated {
  /** The error does not allow a repeat. */
  NOT_RETRYABLE,

  /** The call had made as many tries as it may. */
  MAX_TRIES,

  /** The delay before the next try would have ended after the deadline. */
  DEADLINE,

  /** The client's calls had used up the repeats that they share. */
  BUDGET
}
