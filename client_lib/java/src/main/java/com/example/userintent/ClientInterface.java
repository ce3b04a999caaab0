package com.example.userintent;

import com.example.userintent.v1.CreateUserIntentRequest;
import com.example.userintent.v1.Creation;
import com.example.userintent.v1.GetUserIntentResponse;

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
}
