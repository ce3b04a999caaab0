package com.example.userintent;

import com.example.userintent.v1.AuthorizationPage;
import com.example.userintent.v1.UserIntent;
import com.example.userintent.v1.UserIntentStatus;
import io.grpc.Status;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * The page of Astra's that a person goes to next, for programs that have the intent already: the same URL, and the same
 * refusals, as {@link UserIntentClient#getAuthorizationUrl}, without a call. What the gateway alone knows, the redirect
 * URIs that are registered for the caller, is not checked here. Immutable; any thread may use it.
 */
public final class AuthorizationUrl {
  private final String url;
  private final AuthorizationPage page;

  private AuthorizationUrl(String url, AuthorizationPage page) {
    this.url = url;
    this.page = page;
  }

  /**
   * Makes it.
   *
   * @param appUrl where Astra's pages are: {@code https://app.astra.finance}, of its sandbox
   *     {@code https://app-sandbox.astra.finance}; a slash after it does not count
   * @param clientId Astra's id of the program that the gateway creates intents for
   * @param intent as the gateway told it
   * @param redirectUri where the person comes back: https (http for loopback only)
   * @param state 16-256 of {@code [A-Za-z0-9._~-]}, made anew for each person and compared when the person comes back
   * @return the page
   * @throws InvalidRequestException FIELD_INVALID: the redirect URI or the state breaks its rule
   * @throws StopException USER_INTENT_NOT_ELIGIBLE: the person was rejected or suspended
   */
  public static AuthorizationUrl of(
      String appUrl, String clientId, UserIntent intent, String redirectUri, String state) {
    List<Violation> violations = new ArrayList<>();
    if (!RedirectUri.isValid(redirectUri)) {
      violations.add(new Violation(
          "redirect_uri", "must be an https URI (http for loopback only), without a user and a fragment"));
    }
    if (state.length() < 16 || state.length() > 256 || !state.chars().allMatch(AuthorizationUrl::isUnreserved)) {
      violations.add(new Violation("state", "must be 16-256 of [A-Za-z0-9._~-]"));
    }
    if (!violations.isEmpty()) {
      throw refused(Decoded.made(Status.Code.INVALID_ARGUMENT, "a part of the URL breaks its rule", "FIELD_INVALID",
                        Map.of("recovery", "FIX_REQUEST"), violations),
          intent);
    }
    AuthorizationPage page = AuthorizationPage.AUTHORIZATION_PAGE_AUTHORIZE;
    StringBuilder url = new StringBuilder(appUrl.endsWith("/") ? appUrl.substring(0, appUrl.length() - 1) : appUrl);
    switch (intent.getStatus()) {
      case USER_INTENT_STATUS_REJECTED:
      case USER_INTENT_STATUS_SUSPENDED:
        throw refused(
            Decoded.made(Status.Code.FAILED_PRECONDITION, "there is no page for a person who was rejected or suspended",
                "USER_INTENT_NOT_ELIGIBLE", Map.of("recovery", "STOP")),
            intent);
      case USER_INTENT_STATUS_DOCUMENT:
        page = AuthorizationPage.AUTHORIZATION_PAGE_VERIFY_DOCUMENT;
        url.append("/verify/document");
        break;
      case USER_INTENT_STATUS_RETRY:
        page = AuthorizationPage.AUTHORIZATION_PAGE_VERIFY_PERSONAL;
        url.append("/verify/personal");
        break;
      default:
        url.append("/login/oauth/authorize");
        break;
    }
    append(url, "?client_id=", clientId);
    append(url, "&redirect_uri=", redirectUri);
    if (page == AuthorizationPage.AUTHORIZATION_PAGE_AUTHORIZE) {
      append(url, "&response_type=", "code");
    }
    if (intent.getStatus() == UserIntentStatus.USER_INTENT_STATUS_CONVERTED_TO_USER && !intent.getUserId().isEmpty()) {
      append(url, "&user_id=", intent.getUserId());
    } else {
      append(url, "&user_intent_id=", intent.getId());
    }
    append(url, "&state=", state);
    return new AuthorizationUrl(url.toString(), page);
  }

  private static UserIntentException refused(Decoded decoded, UserIntent intent) {
    return UserIntentException.of(decoded.ofRead(intent.getId(), 0).last(NotRepeated.NOT_RETRYABLE), "", 0, null, null);
  }

  private static void append(StringBuilder url, String name, String value) {
    url.append(name);
    for (byte octet : value.getBytes(StandardCharsets.UTF_8)) {
      if (isUnreserved(octet)) {
        url.append((char) octet);
      } else {
        url.append(String.format("%%%02X", octet));
      }
    }
  }

  /** RFC 3986 section 2.3. */
  static boolean isUnreserved(int c) {
    return RedirectUri.isAlnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
  }

  /**
   * The whole URL.
   *
   * @return it holds no personal data and no secret; with the intent's id in it, it belongs in no log all the same
   */
  public String getUrl() {
    return url;
  }

  /**
   * Which page it is.
   *
   * @return the page
   */
  public AuthorizationPage getPage() {
    return page;
  }

  /** The page alone. */
  @Override
  public String toString() {
    return page.name();
  }
}
