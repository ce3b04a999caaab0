package com.example.userintent;

import com.example.userintent.v1.Options;
import com.google.protobuf.ByteString;
import com.google.protobuf.Descriptors.EnumValueDescriptor;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.MapEntry;
import com.google.protobuf.MessageOrBuilder;
import com.google.protobuf.TextFormat;
import java.util.List;
import java.util.Map;

/**
 * The text of a message without personal data, for logs: {@code log.info("creating {}", Redacted.of(request))}. Which
 * fields are personal is said by the option {@code personal_data} of the proto file and by nothing here. (The
 * {@code toString()} of a message shows everything; it is final in protobuf.) Any thread may use it.
 */
public final class Redacted {
  private static final String REDACTED = "<redacted>";

  private final MessageOrBuilder message;

  private Redacted(MessageOrBuilder message) {
    this.message = message;
  }

  /**
   * Becomes text only when somebody asks for it.
   *
   * @param message any message, or its builder
   * @return an object whose {@link #toString()} is {@link #toString(MessageOrBuilder)}
   */
  public static Redacted of(MessageOrBuilder message) {
    return new Redacted(message);
  }

  @Override
  public String toString() {
    return toString(message);
  }

  /**
   * One line with the names of all fields that are set, and the values of those that are not personal. Of unknown
   * fields only their presence is told, because nobody knows what they hold.
   *
   * @param message any message, or its builder
   * @return the text, such as {@code CreateUserIntentRequest(request_id="...", email=<redacted>)}
   */
  public static String toString(MessageOrBuilder message) {
    StringBuilder text = new StringBuilder();
    write(text, message);
    return text.toString();
  }

  private static void write(StringBuilder text, MessageOrBuilder message) {
    text.append(message.getDescriptorForType().getName()).append('(');
    String separator = "";
    for (Map.Entry<FieldDescriptor, Object> entry : message.getAllFields().entrySet()) {
      FieldDescriptor field = entry.getKey();
      text.append(separator).append(field.getName()).append('=');
      separator = ", ";
      if (field.getOptions().getExtension(Options.personalData)) {
        text.append(REDACTED);
      } else if (field.isRepeated()) {
        text.append('[');
        String next = "";
        for (Object value : (List<?>) entry.getValue()) {
          text.append(next);
          next = ", ";
          writeValue(text, value);
        }
        text.append(']');
      } else {
        writeValue(text, entry.getValue());
      }
    }
    if (!message.getUnknownFields().asMap().isEmpty()) {
      text.append(separator).append("<unknown fields>");
    }
    text.append(')');
  }

  private static void writeValue(StringBuilder text, Object value) {
    if (value instanceof MapEntry) {
      writeValue(text, ((MapEntry<?, ?>) value).getKey());
      text.append(": ");
      writeValue(text, ((MapEntry<?, ?>) value).getValue());
    } else if (value instanceof MessageOrBuilder) {
      write(text, (MessageOrBuilder) value);
    } else if (value instanceof EnumValueDescriptor) {
      EnumValueDescriptor known = (EnumValueDescriptor) value;
      text.append(known.getIndex() >= 0 ? known.getName() : String.valueOf(known.getNumber()));
    } else if (value instanceof String) {
      text.append('"').append(TextFormat.escapeBytes(ByteString.copyFromUtf8((String) value))).append('"');
    } else if (value instanceof ByteString) {
      text.append('"').append(TextFormat.escapeBytes((ByteString) value)).append('"');
    } else {
      text.append(value);
    }
  }
}
