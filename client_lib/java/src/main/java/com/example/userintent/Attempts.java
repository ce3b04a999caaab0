package com.example.userintent;

import java.io.Serializable;
import java.util.Objects;

/** How many attempts of the e-mail address are used, as far as an error tells. Immutable. */
public final class Attempts implements Serializable {
  private static final long serialVersionUID = 1;

  private final int usedMin;
  private final int usedMax;

  Attempts(int usedMin, int usedMax) {
    this.usedMin = usedMin;
    this.usedMax = usedMax;
  }

  /**
   * Attempts that are surely used.
   *
   * @return a count
   */
  public int getUsedMin() {
    return usedMin;
  }

  /**
   * Attempts that are possibly used: the sure ones, unknown outcomes, requests in flight, rejections.
   *
   * @return a count
   */
  public int getUsedMax() {
    return usedMax;
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Attempts && usedMin == ((Attempts) other).usedMin && usedMax == ((Attempts) other).usedMax;
  }

  @Override
  public int hashCode() {
    return Objects.hash(usedMin, usedMax);
  }

  @Override
  public String toString() {
    return usedMin + " to " + usedMax + " attempts used";
  }
}
