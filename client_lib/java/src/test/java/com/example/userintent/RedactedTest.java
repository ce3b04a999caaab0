package com.example.userintent;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.example.userintent.v1.CreateUserIntentRequest;
import com.example.userintent.v1.Creation;
import com.example.userintent.v1.Options;
import com.example.userintent.v1.UserIntent;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.UnknownFieldSet;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.Test;

class RedactedTest {
  @Test
  void hidesExactlyWhatTheProtoFileMarks() {
    Set<String> shown = new TreeSet<>();
    for (FieldDescriptor field : CreateUserIntentRequest.getDescriptor().getFields()) {
      CreateUserIntentRequest.Builder request = CreateUserIntentRequest.newBuilder();
      if (field.isMapField()) {
        request.putMetadata("canary-key", "canary-value");
      } else if (field.getJavaType() == FieldDescriptor.JavaType.STRING) {
        request.setField(field, "canary-value");
      } else if (field.getJavaType() == FieldDescriptor.JavaType.BOOLEAN) {
        request.setField(field, true);
      } else {
        request.setField(field, field.getEnumType().findValueByNumber(2));
      }
      String text = Redacted.toString(request.build());
      assertTrue(text.contains(field.getName() + "="), text);
      boolean personal = field.getOptions().getExtension(Options.personalData);
      assertEquals(personal, text.equals("CreateUserIntentRequest(" + field.getName() + "=<redacted>)"), text);
      assertFalse(personal && text.contains("canary"), text);
      assertEquals(text, Redacted.toString(request));
      assertEquals(text, "" + Redacted.of(request.build()));
      if (!personal) {
        shown.add(field.getName());
      }
    }
    // A look from outside: were the option lost, everything above would agree that nothing is personal.
    assertEquals(
        Set.of("request_id", "verification_type", "validate_only", "allow_repeat", "supersedes_request_id"), shown);
  }

  @Test
  void unknownFieldsAndNumbers() {
    CreateUserIntentRequest request =
        CreateUserIntentRequest.newBuilder()
            .setVerificationTypeValue(7)
            .setUnknownFields(UnknownFieldSet.newBuilder()
                                  .addField(99,
                                      UnknownFieldSet.Field.newBuilder()
                                          .addLengthDelimited(com.google.protobuf.ByteString.copyFromUtf8("canary"))
                                          .build())
                                  .build())
            .build();
    assertEquals("CreateUserIntentRequest(verification_type=7, <unknown fields>)", Redacted.toString(request));
  }

  @Test
  void oneLineAndNested() {
    Creation.Builder creation =
        Creation.newBuilder().setRequestId("a\n\"b\"").setUserIntent(UserIntent.newBuilder().setId("i"));
    creation.getErrorBuilder().setReason("R").putMetadata("sent", "no");
    assertEquals("Creation(request_id=\"a\\n\\\"b\\\"\", user_intent=UserIntent(id=\"i\"), "
            + "error=ErrorInfo(reason=\"R\", metadata=[\"sent\": \"no\"]))",
        Redacted.toString(creation.build()));
  }

  @Test
  void resultsAndErrorsHoldNoRequest() {
    UserIntentException error = UserIntentException.of(Decoded.malformed(), "id", 1, FakeGateway.person(), null);
    for (String word : new String[] {"zorblatt", "Vexmoor", "8259", "canary"}) {
      assertFalse(error.toString().contains(word));
    }
  }
}
