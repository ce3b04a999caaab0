package com.example.userintent;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.example.userintent.v1.CreateUserIntentRequest;
import com.example.userintent.v1.UserIntent;
import io.grpc.Status;
import java.util.Map;
import java.util.concurrent.CompletionException;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

/** The stand-in of the client behaves as the client does, as far as a caller's test can see. */
class FakeClientTest {
  private static final CreateUserIntentRequest PERSON =
      CreateUserIntentRequest.newBuilder().setEmail("person@example.com").build();

  private final FakeClient client = new FakeClient();

  @Test
  void oneIntentForEachRequestId() {
    CreateResult made = client.createUserIntent(PERSON);
    assertEquals("intent-1", made.getUserIntentId());
    assertFalse(made.isReplayed());
    CallSettings sameId = CallSettings.defaults().withRequestId(made.getRequestId().toUpperCase());
    CreateResult again = client.createUserIntentAsync(PERSON, sameId).join();
    assertEquals("intent-1", again.getUserIntentId());
    assertTrue(again.isReplayed());
    assertEquals("intent-2", client.createUserIntentAsync(PERSON).join().getUserIntentId());
    assertEquals(3, client.getRequests().size());
    assertEquals(made.getRequestId(), client.getRequests().get(0).getRequestId());
    assertEquals("intent-1", client.getCreation(made.getRequestId()).getUserIntent().getId());
    client.setUserIntent(UserIntent.newBuilder().setId("intent-1").setUserId("user-1").build());
    IntentKey ofRequest = IntentKey.ofRequest(made.getRequestId());
    assertEquals("user-1", client.getUserIntent(ofRequest).getUserIntent().getUserId());
    assertEquals(
        "user-1", client.getUserIntentAsync(IntentKey.ofIntent("intent-1")).join().getUserIntent().getUserId());
    assertThrows(
        IllegalArgumentException.class, () -> client.setUserIntent(UserIntent.newBuilder().setId("intent-9").build()));
  }

  @Test
  void validateOnlyCreatesNothing() {
    CreateUserIntentRequest checked = PERSON.toBuilder().setRequestId("R").setValidateOnly(true).build();
    assertTrue(client.createUserIntent(checked).getUserIntent().isEmpty());
    assertEquals("REQUEST_NOT_FOUND", assertThrows(StopException.class, () -> client.getCreation("R")).getReason());
  }

  @Test
  void failuresComeInOrderAndACreationIsRepeated() {
    client.fail(Status.Code.UNAVAILABLE)
        .fail(Status.Code.UNAVAILABLE)
        .fail(Status.Code.ALREADY_EXISTS, "PERSON_EXISTS",
            Map.of("recovery", "USE_EXISTING", "sent", "no", "user_intent_id", "i"));
    OutcomeUnknownException lost = assertThrows(OutcomeUnknownException.class, () -> client.createUserIntent(PERSON));
    assertTrue(lost.isMaybeSent());
    RetryLaterException read =
        assertThrows(RetryLaterException.class, () -> client.getUserIntent(IntentKey.ofIntent("I")));
    assertFalse(read.isMaybeSent());
    assertEquals("I", read.getUserIntentId().orElseThrow());
    UserIntentException exists = assertInstanceOf(IntentExistsException.class,
        assertThrows(CompletionException.class, () -> client.repeatAsync(lost).join()).getCause());
    assertEquals("i", exists.getUserIntentId().orElseThrow());
    assertEquals(lost.getRequestId(), exists.getRequestId());
    assertEquals("intent-1", client.repeat(exists).getUserIntentId());
    assertEquals(3, client.getRequests().size());
    assertThrows(IllegalArgumentException.class, () -> client.repeat(read));
  }

  @Test
  void nothingOfThatId() {
    assertEquals("REQUEST_NOT_FOUND",
        assertThrows(StopException.class, () -> client.getUserIntent(IntentKey.ofRequest("R"))).getReason());
    assertEquals("USER_INTENT_NOT_FOUND",
        assertThrows(StopException.class, () -> client.getUserIntent(IntentKey.ofIntent("I"))).getReason());
    assertEquals("REQUEST_NOT_FOUND",
        UserIntentException.in(assertThrows(CompletionException.class, () -> client.getCreationAsync("R").join()))
            .orElseThrow()
            .getReason());
  }

  @Test
  void anyThreadMayUseIt() {
    CallSettings one = CallSettings.defaults().withRequestId("one");
    assertEquals(Map.of(false, 1L, true, 99L),
        IntStream.range(0, 100)
            .parallel()
            .mapToObj(i -> client.createUserIntent(PERSON, one).isReplayed())
            .collect(Collectors.groupingBy(replayed -> replayed, Collectors.counting())));
  }
}
