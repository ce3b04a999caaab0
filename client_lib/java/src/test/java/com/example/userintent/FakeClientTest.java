package com.example.userintent;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.example.userintent.v1.CreateUserIntentRequest;
import com.example.userintent.v1.Creation;
import com.example.userintent.v1.CreationState;
import com.example.userintent.v1.UserIntent;
import com.example.userintent.v1.UserIntentStatus;
import com.google.protobuf.ByteString;
import io.grpc.Status;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletionException;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The stand-in of the client behaves as the client does, as far as a caller's test can see. */
@Timeout(60)
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

  private static Creation unknown(String requestId) {
    return Creation.newBuilder().setRequestId(requestId).setState(CreationState.CREATION_STATE_UNKNOWN).build();
  }

  @Test
  void watchesTellWhatChanges() {
    client.setCreation(unknown("R"));
    assertEquals(CreationState.CREATION_STATE_UNKNOWN, client.getCreation("r").getState());
    ByteString token;
    try (Watch watch = client.watch(List.of("R", "other"))) {
      assertEquals(CreationState.CREATION_STATE_UNKNOWN, watch.next().getCreation().getState());
      assertEquals(WatchEvent.Kind.SYNCED, watch.next().getKind());
      client.createUserIntent(PERSON); // nobody follows that
      client.createUserIntent(PERSON, CallSettings.defaults().withRequestId("R"));
      WatchEvent created = watch.next();
      assertEquals("r", created.getCreation().getRequestId());
      assertEquals(CreationState.CREATION_STATE_CREATED, created.getCreation().getState());
      token = watch.getResumeToken();
    }
    client.setUserIntent(UserIntent.newBuilder().setId("intent-2").setUserId("user-2").build());
    try (Watch watch = client.watch(List.of(), CallSettings.defaults().withResumeToken(token))) {
      assertEquals("user-2", watch.next().getCreation().getUserIntent().getUserId());
      assertEquals(WatchEvent.Kind.SYNCED, watch.next().getKind());
    }
  }

  @Test
  void waitsEndAsTheClientsDo() {
    assertEquals("REQUEST_NOT_FOUND", assertThrows(StopException.class, () -> client.waitForOutcome("R")).getReason());
    client.setCreation(unknown("R"));
    CallFuture<Creation> outcome = client.waitForOutcomeAsync("R");
    CallFuture<UserIntent> approved =
        client.waitForStatusAsync("R", Set.of(UserIntentStatus.USER_INTENT_STATUS_APPROVED));
    UserIntent intent =
        UserIntent.newBuilder().setId("intent-1").setStatus(UserIntentStatus.USER_INTENT_STATUS_SUSPENDED).build();
    client.setCreation(Creation.newBuilder()
                           .setRequestId("R")
                           .setState(CreationState.CREATION_STATE_CREATED)
                           .setUserIntent(intent)
                           .build());
    assertEquals(intent, outcome.join().getUserIntent());
    UserIntentException never =
        UserIntentException.in(assertThrows(CompletionException.class, approved::join)).orElseThrow();
    assertEquals(UserIntentStatus.USER_INTENT_STATUS_SUSPENDED, never.getFinalStatus().orElseThrow());
    client.setCreation(unknown("R"));
    CallSettings soon = CallSettings.defaults().withTimeout(Duration.ofMillis(100));
    assertEquals(Status.Code.DEADLINE_EXCEEDED,
        assertThrows(RetryLaterException.class, () -> client.waitForOutcome("R", soon)).getCode());
    client.fail(Status.Code.PERMISSION_DENIED, "CALLER_NOT_ALLOWED", Map.of("recovery", "STOP"));
    assertEquals("R", assertThrows(StopException.class, () -> client.waitForOutcome("R")).getRequestId());
  }

  @Test
  void authorizationUrls() {
    client.createUserIntent(PERSON, CallSettings.defaults().withRequestId("R"));
    IntentKey key = IntentKey.ofRequest("R");
    String url = client.getAuthorizationUrl(key, "https://app.example.com/done", "0123456789abcdef").getUrl();
    assertTrue(url.startsWith("https://app-sandbox.astra.finance/login/oauth/authorize?client_id=client-id&"), url);
    assertThrows(InvalidRequestException.class, () -> client.getAuthorizationUrl(key, "", ""));
  }
}
