package com.example.userintent;

import com.example.userintent.v1.CreateUserIntentRequest;
import com.example.userintent.v1.Creation;
import com.example.userintent.v1.GetAuthorizationUrlResponse;
import com.example.userintent.v1.GetUserIntentResponse;
import com.example.userintent.v1.UserIntent;
import com.example.userintent.v1.UserIntentStatus;
import java.util.Collection;
import java.util.Set;
import java.util.concurrent.Flow;

/**
 * What a program calls of a {@link UserIntentClient}, so that its tests can bring a {@link FakeClient} instead. It may
 * gain methods. What each one does, and throws, is said there.
 */
public interface ClientInterface {
  /**
   * Creates a User Intent, at most one for each request_id.
   *
   * @param request who is to be created
   * @return the answer
   */
  default CreateResult createUserIntent(CreateUserIntentRequest request) {
    return createUserIntent(request, CallSettings.defaults());
  }

  /**
   * Creates a User Intent, at most one for each request_id.
   *
   * @param request who is to be created
   * @param settings timeout, tries, request_id
   * @return the answer
   */
  CreateResult createUserIntent(CreateUserIntentRequest request, CallSettings settings);

  /**
   * {@link #createUserIntent(CreateUserIntentRequest)} without blocking.
   *
   * @param request who is to be created
   * @return the call
   */
  default CallFuture<CreateResult> createUserIntentAsync(CreateUserIntentRequest request) {
    return createUserIntentAsync(request, CallSettings.defaults());
  }

  /**
   * {@link #createUserIntent(CreateUserIntentRequest, CallSettings)} without blocking.
   *
   * @param request who is to be created
   * @param settings timeout, tries, request_id
   * @return the call
   */
  CallFuture<CreateResult> createUserIntentAsync(CreateUserIntentRequest request, CallSettings settings);

  /**
   * The creation that ended with this error once more.
   *
   * @param error of a creation
   * @return the answer
   */
  default CreateResult repeat(UserIntentException error) {
    return repeat(error, CallSettings.defaults());
  }

  /**
   * The creation that ended with this error once more.
   *
   * @param error of a creation
   * @param settings timeout and tries
   * @return the answer
   */
  CreateResult repeat(UserIntentException error, CallSettings settings);

  /**
   * {@link #repeat(UserIntentException)} without blocking.
   *
   * @param error of a creation
   * @return the call
   */
  default CallFuture<CreateResult> repeatAsync(UserIntentException error) {
    return repeatAsync(error, CallSettings.defaults());
  }

  /**
   * {@link #repeat(UserIntentException, CallSettings)} without blocking.
   *
   * @param error of a creation
   * @param settings timeout and tries
   * @return the call
   */
  CallFuture<CreateResult> repeatAsync(UserIntentException error, CallSettings settings);

  /**
   * What is recorded about one of the caller's own requests.
   *
   * @param requestId the id of the request
   * @return the record
   */
  default Creation getCreation(String requestId) {
    return getCreation(requestId, CallSettings.defaults());
  }

  /**
   * What is recorded about one of the caller's own requests.
   *
   * @param requestId the id of the request
   * @param settings timeout and tries
   * @return the record
   */
  Creation getCreation(String requestId, CallSettings settings);

  /**
   * {@link #getCreation(String)} without blocking.
   *
   * @param requestId the id of the request
   * @return the call
   */
  default CallFuture<Creation> getCreationAsync(String requestId) {
    return getCreationAsync(requestId, CallSettings.defaults());
  }

  /**
   * {@link #getCreation(String, CallSettings)} without blocking.
   *
   * @param requestId the id of the request
   * @param settings timeout and tries
   * @return the call
   */
  CallFuture<Creation> getCreationAsync(String requestId, CallSettings settings);

  /**
   * One of the caller's own intents as Astra has it now.
   *
   * @param key the intent
   * @return what Astra says
   */
  default GetUserIntentResponse getUserIntent(IntentKey key) {
    return getUserIntent(key, CallSettings.defaults());
  }

  /**
   * One of the caller's own intents as Astra has it now.
   *
   * @param key the intent
   * @param settings timeout and tries, how old the answer may be
   * @return what Astra says
   */
  GetUserIntentResponse getUserIntent(IntentKey key, CallSettings settings);

  /**
   * {@link #getUserIntent(IntentKey)} without blocking.
   *
   * @param key the intent
   * @return the call
   */
  default CallFuture<GetUserIntentResponse> getUserIntentAsync(IntentKey key) {
    return getUserIntentAsync(key, CallSettings.defaults());
  }

  /**
   * {@link #getUserIntent(IntentKey, CallSettings)} without blocking.
   *
   * @param key the intent
   * @param settings timeout and tries, how old the answer may be
   * @return the call
   */
  CallFuture<GetUserIntentResponse> getUserIntentAsync(IntentKey key, CallSettings settings);

  /**
   * Where to send the person of one of the caller's own intents.
   *
   * @param key the intent
   * @param redirectUri where the person comes back
   * @param state to be compared when the person comes back
   * @return the URL, the page and the intent
   */
  default GetAuthorizationUrlResponse getAuthorizationUrl(IntentKey key, String redirectUri, String state) {
    return getAuthorizationUrl(key, redirectUri, state, CallSettings.defaults());
  }

  /**
   * Where to send the person of one of the caller's own intents.
   *
   * @param key the intent
   * @param redirectUri where the person comes back
   * @param state to be compared when the person comes back
   * @param settings timeout and tries
   * @return the URL, the page and the intent
   */
  GetAuthorizationUrlResponse getAuthorizationUrl(
      IntentKey key, String redirectUri, String state, CallSettings settings);

  /**
   * {@link #getAuthorizationUrl(IntentKey, String, String)} without blocking.
   *
   * @param key the intent
   * @param redirectUri where the person comes back
   * @param state to be compared when the person comes back
   * @return the call
   */
  default CallFuture<GetAuthorizationUrlResponse> getAuthorizationUrlAsync(
      IntentKey key, String redirectUri, String state) {
    return getAuthorizationUrlAsync(key, redirectUri, state, CallSettings.defaults());
  }

  /**
   * {@link #getAuthorizationUrl(IntentKey, String, String, CallSettings)} without blocking.
   *
   * @param key the intent
   * @param redirectUri where the person comes back
   * @param state to be compared when the person comes back
   * @param settings timeout and tries
   * @return the call
   */
  CallFuture<GetAuthorizationUrlResponse> getAuthorizationUrlAsync(
      IntentKey key, String redirectUri, String state, CallSettings settings);

  /**
   * Follows the caller's requests.
   *
   * @param requestIds up to 1,000; empty: all of the caller's
   * @return to be closed
   */
  default Watch watch(Collection<String> requestIds) {
    return watch(requestIds, CallSettings.defaults());
  }

  /**
   * Follows the caller's requests.
   *
   * @param requestIds up to 1,000; empty: all of the caller's
   * @param settings timeout; where to go on
   * @return to be closed
   */
  Watch watch(Collection<String> requestIds, CallSettings settings);

  /**
   * {@link #watch(Collection)} without blocking.
   *
   * @param requestIds up to 1,000; empty: all of the caller's
   * @return may be subscribed to any number of times
   */
  default Flow.Publisher<WatchEvent> watchPublisher(Collection<String> requestIds) {
    return watchPublisher(requestIds, CallSettings.defaults());
  }

  /**
   * {@link #watch(Collection, CallSettings)} without blocking.
   *
   * @param requestIds up to 1,000; empty: all of the caller's
   * @param settings timeout of each subscription; where to go on
   * @return may be subscribed to any number of times
   */
  Flow.Publisher<WatchEvent> watchPublisher(Collection<String> requestIds, CallSettings settings);

  /**
   * Waits until it is known what became of a request.
   *
   * @param requestId of the caller's
   * @return the creation
   */
  default Creation waitForOutcome(String requestId) {
    return waitForOutcome(requestId, CallSettings.defaults());
  }

  /**
   * Waits until it is known what became of a request.
   *
   * @param requestId of the caller's
   * @param settings timeout
   * @return the creation
   */
  Creation waitForOutcome(String requestId, CallSettings settings);

  /**
   * {@link #waitForOutcome(String)} without blocking.
   *
   * @param requestId of the caller's
   * @return the wait
   */
  default CallFuture<Creation> waitForOutcomeAsync(String requestId) {
    return waitForOutcomeAsync(requestId, CallSettings.defaults());
  }

  /**
   * {@link #waitForOutcome(String, CallSettings)} without blocking.
   *
   * @param requestId of the caller's
   * @param settings timeout
   * @return the wait
   */
  CallFuture<Creation> waitForOutcomeAsync(String requestId, CallSettings settings);

  /**
   * Waits until the intent of a request has one of these statuses.
   *
   * @param requestId of the caller's
   * @param statuses any of them will do
   * @return the intent
   */
  default UserIntent waitForStatus(String requestId, Set<UserIntentStatus> statuses) {
    return waitForStatus(requestId, statuses, CallSettings.defaults());
  }

  /**
   * Waits until the intent of a request has one of these statuses.
   *
   * @param requestId of the caller's
   * @param statuses any of them will do
   * @param settings timeout
   * @return the intent
   */
  UserIntent waitForStatus(String requestId, Set<UserIntentStatus> statuses, CallSettings settings);

  /**
   * {@link #waitForStatus(String, Set)} without blocking.
   *
   * @param requestId of the caller's
   * @param statuses any of them will do
   * @return the wait
   */
  default CallFuture<UserIntent> waitForStatusAsync(String requestId, Set<UserIntentStatus> statuses) {
    return waitForStatusAsync(requestId, statuses, CallSettings.defaults());
  }

  /**
   * {@link #waitForStatus(String, Set, CallSettings)} without blocking.
   *
   * @param requestId of the caller's
   * @param statuses any of them will do
   * @param settings timeout
   * @return the wait
   */
  CallFuture<UserIntent> waitForStatusAsync(String requestId, Set<UserIntentStatus> statuses, CallSettings settings);
}
