package com.example.userintent;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.example.userintent.v1.UserIntent;
import com.example.userintent.v1.UserIntentStatus;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.inprocess.InProcessChannelBuilder;
import io.grpc.inprocess.InProcessServerBuilder;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The page that a person goes to next: the helper, and the call. */
@Timeout(60)
class AuthorizationUrlTest {
  private static final String DONE = "https://app.example.com/done";
  private static final String STATE = "0123456789abcdef";

  private final FakeGateway gateway = new FakeGateway();
  private Server server;
  private ManagedChannel channel;
  private UserIntentClient client;

  @BeforeEach
  void start() throws IOException {
    String name = InProcessServerBuilder.generateName();
    server = InProcessServerBuilder.forName(name).addService(gateway).build().start();
    channel = InProcessChannelBuilder.forName(name).disableRetry().build();
    client = UserIntentClient.builder(channel).build();
  }

  @AfterEach
  void stop() {
    client.close();
    channel.shutdownNow();
    server.shutdownNow();
  }

  /** The cases that the gateway and all libraries agree on. */
  @Test
  void asTheGatewayWouldAnswer() throws IOException {
    String json = Files.readString(Path.of("../../tests/conformance/authorization_urls.json"));
    List<?> cases = (List<?>) ((Map<?, ?>) io.grpc.internal.JsonParser.parse(json)).get("cases");
    assertTrue(cases.size() >= 80);
    for (Object each : cases) {
      check((Map<?, ?>) each);
    }
  }

  private static void check(Map<?, ?> given) {
    String name = text(given, "name");
    UserIntent intent = UserIntent.newBuilder()
                            .setId(text(given, "user_intent_id"))
                            .setUserId(text(given, "user_id"))
                            .setStatus(UserIntentStatus.valueOf("USER_INTENT_STATUS_" + text(given, "status")))
                            .build();
    try {
      AuthorizationUrl made = AuthorizationUrl.of(
          text(given, "app_url"), text(given, "client_id"), intent, text(given, "redirect_uri"), text(given, "state"));
      assertEquals(text(given, "url"), made.getUrl(), name);
      assertEquals("AUTHORIZATION_PAGE_" + text(given, "page"), made.getPage().name(), name);
      assertEquals("", text(given, "reason"), name);
      assertFalse(made.toString().contains(intent.getId()), name);
    } catch (UserIntentException refused) {
      assertEquals(text(given, "reason"), refused.getReason(), name);
      Object violations = given.get("violations");
      assertEquals(violations == null ? List.of() : violations,
          refused.getViolations().stream().map(Violation::getField).collect(Collectors.toList()), name);
      assertEquals(violations == null ? StopException.class : InvalidRequestException.class, refused.getClass(), name);
      assertEquals(
          violations == null ? Status.Code.FAILED_PRECONDITION : Status.Code.INVALID_ARGUMENT, refused.getCode(), name);
      assertFalse(refused.isMaybeSent(), name);
    }
  }

  private static String text(Map<?, ?> given, String name) {
    Object value = given.get(name);
    return value == null ? "" : (String) value;
  }

  @Test
  void aSlashAfterTheOriginDoesNotCount() {
    UserIntent intent = UserIntent.getDefaultInstance();
    assertEquals(AuthorizationUrl.of("https://app.astra.finance", "client", intent, DONE, STATE).getUrl(),
        AuthorizationUrl.of("https://app.astra.finance/", "client", intent, DONE, STATE).getUrl());
  }

  @Test
  void addresses() {
    for (String host : List.of("[::]", "[1::]", "[::1.2.3.4]", "[1:2:3:4:5:6:7:8]", "[1:2:3:4:5:6:1.2.3.4]", "[1::2:3]",
             "a.b-c.d1", "1a.b", "255.255.255.255")) {
      assertTrue(RedirectUri.isValid("https://" + host + "/"), host);
    }
    for (String host : List.of("[]", "[", "[1:2:3:4:5:6:7]", "[1:2:3:4:5:6:7:8:9]", "[1::2::3]", "[:::]", "[12345::]",
             "[g::]", "[1.2.3.4]", "[1.2.3.4::]", "[::1]x", "::1", "256.1.1.1", "1.2.3", "a.1", "a.0x1", "-a.b", "a-.b",
             "a..b", ".a", "a.", "a_b", "01.2.3.4", "a".repeat(64))) {
      assertFalse(RedirectUri.isValid("https://" + host + "/"), host);
    }
  }

  @Test
  void asksAndIsRepeatedAsARead() {
    gateway.answers.add(Status.UNAVAILABLE.asRuntimeException());
    assertEquals(
        "https://app.example.com/", client.getAuthorizationUrl(IntentKey.ofRequest("R"), DONE, STATE).getUrl());
    client.getAuthorizationUrlAsync(IntentKey.ofIntent("I"), DONE, STATE).join();
    assertEquals(3, gateway.authorizations.size());
    assertEquals("R", gateway.authorizations.get(1).getRequestId());
    assertEquals(DONE, gateway.authorizations.get(1).getRedirectUri());
    assertEquals(STATE, gateway.authorizations.get(1).getState());
    assertEquals("I", gateway.authorizations.get(2).getUserIntentId());
  }

  @Test
  void itsErrorsAreOfARead() {
    gateway.answers.add(FakeGateway.error(Status.Code.FAILED_PRECONDITION, new Metadata(),
        FakeGateway.info("USER_INTENT_NOT_ELIGIBLE", "recovery", "STOP")));
    StopException error =
        assertThrows(StopException.class, () -> client.getAuthorizationUrl(IntentKey.ofIntent("I"), DONE, STATE));
    assertFalse(error.isMaybeSent());
    assertEquals("I", error.getUserIntentId().orElseThrow());
    assertEquals(1, error.getTries());
  }
}
