package com.example.userintent;

import java.io.Serializable;
import java.util.Objects;

/** A field that breaks a rule, and the rule. It holds no value. Immutable. */
public final class Violation implements Serializable {
  private static final long serialVersionUID = 1;

  private final String field;
  private final String description;

  Violation(String field, String description) {
    this.field = field;
    this.description = description;
  }

  /**
   * The field.
   *
   * @return its name in the proto file, such as {@code postal_code}
   */
  public String getField() {
    return field;
  }

  /**
   * The rule.
   *
   * @return a fixed text without any value of the request
   */
  public String getDescription() {
    return description;
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Violation && field.equals(((Violation) other).field)
        && description.equals(((Violation) other).description);
  }

  @Override
  public int hashCode() {
    return Objects.hash(field, description);
  }

  @Override
  public String toString() {
    return field + ": " + description;
  }
}
