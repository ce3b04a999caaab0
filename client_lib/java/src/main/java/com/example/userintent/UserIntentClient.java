package com.example.userintent;

import com.example.userintent.v1.CreateUserIntentRequest;
import com.example.userintent.v1.CreateUserIntentResponse;
import com.example.userintent.v1.Creation;
import com.example.userintent.v1.GetAuthorizationUrlRequest;
import com.example.userintent.v1.GetAuthorizationUrlResponse;
import com.example.userintent.v1.GetCreationRequest;
import com.example.userintent.v1.GetCreationResponse;
import com.example.userintent.v1.GetUserIntentRequest;
import com.example.userintent.v1.GetUserIntentResponse;
import com.example.userintent.v1.UserIntent;
import com.example.userintent.v1.UserIntentServiceGrpc;
import com.example.userintent.v1.UserIntentStatus;
import com.google.protobuf.ByteString;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Message;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Flow;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.DoubleSupplier;

/**
 * The client of the User Intent gateway. Any number of threads may use it; make one for a whole program and keep it,
 * because it holds the connection.
 *
 * <p>A call without a request_id gets a new one, which is in the result and in every error. After an error use
 * {@link #repeat}, or call again with {@link CallSettings#withRequestId}; calling again without an id is a new
 * creation.
 *
 * <p>Errors that carry RetryInfo are repeated by the library: with the same id, not before their delay (up to a quarter
 * later, at random), only when that fits the deadline, at most {@link Builder#maxTries} RPCs a call, and out of a
 * budget that the client's calls share: 10 repeats, and one more for every 10 calls that succeed.
 */
public final class UserIntentClient implements ClientInterface, AutoCloseable {
  /** How long a call may take, all its tries included, unless the client or the call says otherwise. */
  public static final Duration DEFAULT_TIMEOUT = Duration.ofSeconds(35);

  /** How many RPCs a call may make, unless the client or the call says otherwise. */
  public static final int DEFAULT_MAX_TRIES = 5;

  private static final int MAX_REQUEST_BYTES = 64 * 1024; // of a message on the wire; the gateway takes no longer one

  private final Channel channel;
  private final ManagedChannel own; // null: the channel is the caller's
  private final Duration timeout;
  private final int maxTries;
  private final DoubleSupplier jitter;
  private final RetryBudget budget = new RetryBudget();
  private final Set<Runnable> waiting = ConcurrentHashMap.newKeySet();
  private final Set<WatchRun> watches = ConcurrentHashMap.newKeySet();
  private final long silenceNanos;
  private volatile boolean closed;

  private UserIntentClient(Builder builder) {
    own = builder.channel == null ? builder.connect() : null;
    channel = own == null ? builder.channel : own;
    timeout = builder.timeout;
    maxTries = builder.maxTries;
    jitter = builder.jitter;
    silenceNanos = builder.silenceNanos;
    if (own != null) {
      Reconnecting.watch(own);
    }
  }

  /**
   * For a client with a connection of its own, which is made at the first call and ended by {@link #close}.
   *
   * @param target the gateway, such as {@code gateway.internal:50051}, or any other target that gRPC knows
   * @return a builder that still needs one of {@link Builder#tls}, {@link Builder#plaintext} and
   *     {@link Builder#credentials}
   * @throws IllegalArgumentException when the target is empty, or holds a control character
   */
  public static Builder builder(String target) {
    if (!namesSomething(target)) {
      throw new IllegalArgumentException("the target is empty, or holds a control character");
    }
    return new Builder(target, null);
  }

  /**
   * For a client on the caller's own channel, which it neither configures nor closes; see {@link #channelBuilder} for
   * what suits the gateway. Retries of a service config must be off there: {@code disableRetry()}.
   *
   * @param channel any channel, with interceptors or in-process, too
   * @return a builder
   */
  public static Builder builder(Channel channel) {
    return new Builder(null, Objects.requireNonNull(channel, "channel"));
  }

  /**
   * The settings that {@link #builder(String)} uses, for callers who make their own channel: a ping after 30 s of
   * silence, to be answered within 10 s, also between calls; up to 32 KiB of metadata in an answer; no retries of
   * gRPC's own.
   *
   * @param target as for {@link #builder(String)}
   * @param credentials such as those of {@link Tls#credentials}
   * @return a builder to go on with
   */
  public static ManagedChannelBuilder<?> channelBuilder(String target, ChannelCredentials credentials) {
    String version = UserIntentClient.class.getPackage().getImplementationVersion();
    return Grpc.newChannelBuilder(target, credentials)
        .userAgent("userintent-java/" + (version == null ? "0" : version))
        // Repeats are this library's business: gRPC's own do not know which errors may be repeated, and when.
        .disableRetry()
        .disableServiceConfigLookUp()
        // The gateway allows a ping every 10 s, also without calls, and sends its own every 60 s.
        .keepAliveTime(30, TimeUnit.SECONDS)
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .keepAliveWithoutCalls(true)
        .maxInboundMetadataSize(32 * 1024);
  }

  /**
   * Makes a request_id (a random UUID). Store it before the call, and not even a crash of your own program can turn one
   * creation into two.
   *
   * @return a new id
   */
  public static String newRequestId() {
    return UUID.randomUUID().toString();
  }

  /**
   * A gRPC service config for callers that use the generated stubs without this client. Such a caller fills in
   * request_id, which makes the repeats safe; the gateway forbids those that are of no use by its trailer
   * {@code grpc-retry-pushback-ms}, which gRPC obeys. For grpc-java itself see {@link #serviceConfig}.
   *
   * @return JSON, also to be had as the resource {@code /com/example/userintent/service_config.json}
   */
  public static String serviceConfigJson() {
    try (InputStream json = UserIntentClient.class.getResourceAsStream("service_config.json")) {
      return new String(json.readAllBytes(), StandardCharsets.UTF_8);
    } catch (IOException unreadable) {
      throw new UncheckedIOException(unreadable);
    }
  }

  /**
   * {@link #serviceConfigJson} in the form that {@link ManagedChannelBuilder#defaultServiceConfig} wants.
   *
   * @return an unmodifiable map
   */
  public static Map<String, ?> serviceConfig() {
    Map<String, ?> retries = Map.of("maxAttempts", 4.0, "initialBackoff", "1s", "maxBackoff", "5s", "backoffMultiplier",
        2.0, "retryableStatusCodes", List.of("UNAVAILABLE", "ABORTED", "RESOURCE_EXHAUSTED"));
    // gRPC takes the most exact name: no timeout and no repeats for a watch.
    Map<String, ?> watch =
        Map.of("name", List.of(Map.of("service", UserIntentServiceGrpc.SERVICE_NAME, "method", "WatchUserIntents")));
    Map<String, ?> method = Map.of("name", List.of(Map.of("service", UserIntentServiceGrpc.SERVICE_NAME)), "timeout",
        "35s", "retryPolicy", retries);
    return Map.of(
        "methodConfig", List.of(watch, method), "retryThrottling", Map.of("maxTokens", 10.0, "tokenRatio", 0.1));
  }

  /**
   * Creates a User Intent, at most one for each request_id: that of the request, else a new one. Blocks up to the
   * timeout. An interrupt cancels the call.
   *
   * @param request who is to be created; nothing is checked here, the gateway does that
   * @return the answer
   * @throws UserIntentException whatever went wrong
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CreateResult createUserIntent(CreateUserIntentRequest request) {
    return createUserIntent(request, CallSettings.defaults());
  }

  /**
   * {@link #createUserIntent(CreateUserIntentRequest)} with settings for this call.
   *
   * @param request who is to be created
   * @param settings timeout, tries, request_id
   * @return the answer
   * @throws UserIntentException whatever went wrong
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CreateResult createUserIntent(CreateUserIntentRequest request, CallSettings settings) {
    CreateUserIntentRequest sent = withId(request, settings);
    Tries tries = tries(sent.getRequestId(), sent, settings, null);
    checkSendable(sent, tries);
    CreateUserIntentResponse response = call(UserIntentServiceGrpc.getCreateUserIntentMethod(), sent, tries).block();
    return new CreateResult(sent.getRequestId(), tries.count(), response);
  }

  /**
   * {@link #createUserIntent(CreateUserIntentRequest)} without blocking.
   *
   * @param request who is to be created
   * @return the call, which fails with a {@link UserIntentException} and can be cancelled
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CallFuture<CreateResult> createUserIntentAsync(CreateUserIntentRequest request) {
    return createUserIntentAsync(request, CallSettings.defaults());
  }

  /**
   * {@link #createUserIntent(CreateUserIntentRequest, CallSettings)} without blocking.
   *
   * @param request who is to be created
   * @param settings timeout, tries, request_id
   * @return the call, which fails with a {@link UserIntentException} and can be cancelled
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CallFuture<CreateResult> createUserIntentAsync(CreateUserIntentRequest request, CallSettings settings) {
    CreateUserIntentRequest sent = withId(request, settings);
    Tries tries = tries(sent.getRequestId(), sent, settings, null);
    CallFuture<CreateResult> future = new CallFuture<>(tries, sent.getRequestId());
    try {
      checkSendable(sent, tries);
      call(UserIntentServiceGrpc.getCreateUserIntentMethod(), sent, tries)
          .start(future, response -> new CreateResult(sent.getRequestId(), tries.count(), response));
    } catch (UserIntentException refused) {
      future.completeExceptionally(refused);
    }
    return future;
  }

  /**
   * The call that ended with this error once more: same request, same request_id, a new timeout. Safe after every
   * error.
   *
   * @param error of a creation, by this client or another
   * @return the answer
   * @throws UserIntentException whatever went wrong
   * @throws IllegalArgumentException when the error holds no request: it was serialised, or is of {@link #getCreation}
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CreateResult repeat(UserIntentException error) {
    return repeat(error, CallSettings.defaults());
  }

  /**
   * {@link #repeat(UserIntentException)} with settings for this call.
   *
   * @param error of a creation, by this client or another
   * @param settings timeout and tries; the request_id stays
   * @return the answer
   * @throws UserIntentException whatever went wrong
   * @throws IllegalArgumentException when the error holds no request: it was serialised, or is of {@link #getCreation}
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CreateResult repeat(UserIntentException error, CallSettings settings) {
    return createUserIntent(requestOf(error), settings.repeating(error));
  }

  /**
   * {@link #repeat(UserIntentException)} without blocking.
   *
   * @param error of a creation, by this client or another
   * @return the call, which fails with a {@link UserIntentException} and can be cancelled
   * @throws IllegalArgumentException when the error holds no request: it was serialised, or is of {@link #getCreation}
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CallFuture<CreateResult> repeatAsync(UserIntentException error) {
    return repeatAsync(error, CallSettings.defaults());
  }

  /**
   * {@link #repeat(UserIntentException, CallSettings)} without blocking.
   *
   * @param error of a creation, by this client or another
   * @param settings timeout and tries; the request_id stays
   * @return the call, which fails with a {@link UserIntentException} and can be cancelled
   * @throws IllegalArgumentException when the error holds no request: it was serialised, or is of {@link #getCreation}
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CallFuture<CreateResult> repeatAsync(UserIntentException error, CallSettings settings) {
    return createUserIntentAsync(requestOf(error), settings.repeating(error));
  }

  /**
   * What is recorded about one of the caller's own requests. Sends nothing to Astra. Blocks up to the timeout.
   *
   * @param requestId the id of the request
   * @return the record
   * @throws UserIntentException REQUEST_NOT_FOUND when the caller has no such request, or whatever else went wrong
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public Creation getCreation(String requestId) {
    return getCreation(requestId, CallSettings.defaults());
  }

  /**
   * {@link #getCreation(String)} with settings for this call.
   *
   * @param requestId the id of the request
   * @param settings timeout and tries
   * @return the record
   * @throws UserIntentException REQUEST_NOT_FOUND when the caller has no such request, or whatever else went wrong
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public Creation getCreation(String requestId, CallSettings settings) {
    return getCall(requestId, tries(requestId, null, settings, null)).block().getCreation();
  }

  /**
   * {@link #getCreation(String)} without blocking.
   *
   * @param requestId the id of the request
   * @return the call, which fails with a {@link UserIntentException} and can be cancelled
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CallFuture<Creation> getCreationAsync(String requestId) {
    return getCreationAsync(requestId, CallSettings.defaults());
  }

  /**
   * {@link #getCreation(String, CallSettings)} without blocking.
   *
   * @param requestId the id of the request
   * @param settings timeout and tries
   * @return the call, which fails with a {@link UserIntentException} and can be cancelled
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CallFuture<Creation> getCreationAsync(String requestId, CallSettings settings) {
    Tries tries = tries(requestId, null, settings, null);
    CallFuture<Creation> future = new CallFuture<>(tries, requestId);
    try {
      getCall(requestId, tries).start(future, GetCreationResponse::getCreation);
    } catch (UserIntentException refused) {
      future.completeExceptionally(refused);
    }
    return future;
  }

  /**
   * One of the caller's own intents as Astra has it now: its status, and the id of the User that the person has become.
   * Blocks up to the timeout. Reading changes nothing, so it is repeated also after UNAVAILABLE of a connection that
   * broke or could not be made: 200 ms later, and twice as long each time. Its errors say nothing about sending.
   *
   * @param key the intent
   * @return what Astra says
   * @throws UserIntentException REQUEST_NOT_FOUND or USER_INTENT_NOT_FOUND when the caller created no such intent,
   *     NOT_CREATED when its request is recorded without one, or whatever else went wrong
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public GetUserIntentResponse getUserIntent(IntentKey key) {
    return getUserIntent(key, CallSettings.defaults());
  }

  /**
   * {@link #getUserIntent(IntentKey)} with settings for this call.
   *
   * @param key the intent
   * @param settings timeout and tries; {@link CallSettings#withMaxAge} and {@link CallSettings#withAllowStale}
   * @return what Astra says, or what is recorded
   * @throws UserIntentException whatever went wrong
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public GetUserIntentResponse getUserIntent(IntentKey key, CallSettings settings) {
    return readCall(key, settings, tries(key.requestId, null, settings, key)).block();
  }

  /**
   * {@link #getUserIntent(IntentKey)} without blocking.
   *
   * @param key the intent
   * @return the call, which fails with a {@link UserIntentException} and can be cancelled
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CallFuture<GetUserIntentResponse> getUserIntentAsync(IntentKey key) {
    return getUserIntentAsync(key, CallSettings.defaults());
  }

  /**
   * {@link #getUserIntent(IntentKey, CallSettings)} without blocking.
   *
   * @param key the intent
   * @param settings timeout and tries; {@link CallSettings#withMaxAge} and {@link CallSettings#withAllowStale}
   * @return the call, which fails with a {@link UserIntentException} and can be cancelled
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CallFuture<GetUserIntentResponse> getUserIntentAsync(IntentKey key, CallSettings settings) {
    Tries tries = tries(key.requestId, null, settings, key);
    CallFuture<GetUserIntentResponse> future = new CallFuture<>(tries, key.requestId);
    try {
      readCall(key, settings, tries).start(future, response -> response);
    } catch (UserIntentException refused) {
      future.completeExceptionally(refused);
    }
    return future;
  }

  /**
   * Where to send the person of one of the caller's own intents: the page of Astra's that belongs to its status. Fails
   * and is repeated as {@link #getUserIntent}; USER_INTENT_NOT_ELIGIBLE ({@link StopException}) for a person who was
   * rejected or suspended.
   *
   * @param key the intent
   * @param redirectUri where the person comes back, one of those that are registered for this caller
   * @param state 16-256 of {@code [A-Za-z0-9._~-]}, made anew for each person and compared when the person comes back
   * @param settings timeout and tries
   * @return the URL, the page and the intent
   * @throws UserIntentException whatever went wrong
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public GetAuthorizationUrlResponse getAuthorizationUrl(
      IntentKey key, String redirectUri, String state, CallSettings settings) {
    return authorizationCall(key, redirectUri, state, tries(key.requestId, null, settings, key)).block();
  }

  /**
   * {@link #getAuthorizationUrl} without blocking.
   *
   * @param key the intent
   * @param redirectUri where the person comes back
   * @param state to be compared when the person comes back
   * @param settings timeout and tries
   * @return the call, which fails with a {@link UserIntentException} and can be cancelled
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CallFuture<GetAuthorizationUrlResponse> getAuthorizationUrlAsync(
      IntentKey key, String redirectUri, String state, CallSettings settings) {
    Tries tries = tries(key.requestId, null, settings, key);
    CallFuture<GetAuthorizationUrlResponse> future = new CallFuture<>(tries, key.requestId);
    try {
      authorizationCall(key, redirectUri, state, tries).start(future, response -> response);
    } catch (UserIntentException refused) {
      future.completeExceptionally(refused);
    }
    return future;
  }

  /**
   * Follows the caller's requests: a status of an intent that changes, an outcome that becomes known. It begins with
   * the present state of each named request that is recorded, then tells SYNCED, then every change. It has no timeout
   * unless the settings, or the current {@link Context}, give one; tries do not count.
   *
   * @param requestIds up to 1,000; empty: all of the caller's
   * @param settings timeout; {@link CallSettings#withResumeToken}
   * @return to be closed; connects when it is read
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public Watch watch(Collection<String> requestIds, CallSettings settings) {
    WatchState state = watchState(requestIds, settings, settings.timeout);
    return watch(run(state), state);
  }

  /**
   * {@link #watch} without blocking. Each subscription is a watch of its own; it is closed by its cancellation, and
   * ends with {@code onError} as {@link Watch#hasNext} would throw, never with {@code onComplete}. The subscriber is
   * called in gRPC's threads, which it must not block.
   *
   * @param requestIds up to 1,000; empty: all of the caller's
   * @param settings timeout of each subscription; {@link CallSettings#withResumeToken}
   * @return may be subscribed to any number of times
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public Flow.Publisher<WatchEvent> watchPublisher(Collection<String> requestIds, CallSettings settings) {
    checkOpen();
    List<String> ids = List.copyOf(requestIds);
    return new WatchPublisher(() -> newRun(watchState(ids, settings, settings.timeout)));
  }

  /**
   * Waits until it is known what became of a request: its creation is CREATED, REJECTED or NOT_SENT. It is followed as
   * {@link #watch} follows it, across lost connections, up to the timeout. An interrupt cancels the wait.
   *
   * @param requestId of the caller's
   * @param settings timeout
   * @return the creation
   * @throws UserIntentException REQUEST_NOT_FOUND ({@link StopException}); DEADLINE_EXCEEDED while nobody knows
   *     ({@link RetryLaterException}); and what ends a watch
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public Creation waitForOutcome(String requestId, CallSettings settings) {
    return block(requestId, settings, Wait.forOutcome(requestId));
  }

  /**
   * {@link #waitForOutcome} without blocking.
   *
   * @param requestId of the caller's
   * @param settings timeout
   * @return the wait, which fails with a {@link UserIntentException} and can be cancelled
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CallFuture<Creation> waitForOutcomeAsync(String requestId, CallSettings settings) {
    return start(requestId, settings, Wait.forOutcome(requestId));
  }

  /**
   * Waits until the intent of a request has one of these statuses, as {@link #waitForOutcome} waits.
   *
   * @param requestId of the caller's
   * @param statuses any of them will do
   * @param settings timeout
   * @return the intent
   * @throws UserIntentException as {@link #waitForOutcome}; a {@link StopException} when the request ended without an
   *     intent (NOT_CREATED), and when the status stays another one, because it is REJECTED, SUSPENDED or
   *     CONVERTED_TO_USER ({@link UserIntentException#STATUS_FINAL}, {@link UserIntentException#getFinalStatus})
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public UserIntent waitForStatus(String requestId, Set<UserIntentStatus> statuses, CallSettings settings) {
    return block(requestId, settings, Wait.forStatus(requestId, statuses));
  }

  /**
   * {@link #waitForStatus} without blocking.
   *
   * @param requestId of the caller's
   * @param statuses any of them will do
   * @param settings timeout
   * @return the wait, which fails with a {@link UserIntentException} and can be cancelled
   * @throws IllegalStateException when the client is closed
   */
  @Override
  public CallFuture<UserIntent> waitForStatusAsync(
      String requestId, Set<UserIntentStatus> statuses, CallSettings settings) {
    return start(requestId, settings, Wait.forStatus(requestId, statuses));
  }

  /**
   * Ends the connection, unless the channel is the caller's, and with it the calls that run, with CANCELLED. What they
   * sent runs on at the gateway. Watches and waits end in any case.
   */
  @Override
  public void close() {
    closed = true;
    watches.forEach(WatchRun::clientClosed);
    if (own != null) {
      own.shutdownNow();
      waiting.forEach(Runnable::run);
    }
  }

  private Call<GetCreationRequest, GetCreationResponse> getCall(String requestId, Tries tries) {
    GetCreationRequest request = GetCreationRequest.newBuilder().setRequestId(requestId).build();
    checkSendable(request, tries);
    return call(UserIntentServiceGrpc.getGetCreationMethod(), request, tries);
  }

  private Call<GetUserIntentRequest, GetUserIntentResponse> readCall(
      IntentKey key, CallSettings settings, Tries tries) {
    GetUserIntentRequest.Builder request = key.request().setAllowStale(settings.allowStale);
    if (settings.maxAge != null) {
      request.getMaxAgeBuilder().setSeconds(settings.maxAge.getSeconds()).setNanos(settings.maxAge.getNano());
    }
    checkSendable(request.build(), tries);
    return call(UserIntentServiceGrpc.getGetUserIntentMethod(), request.build(), tries);
  }

  private Call<GetAuthorizationUrlRequest, GetAuthorizationUrlResponse> authorizationCall(
      IntentKey key, String redirectUri, String state, Tries tries) {
    GetAuthorizationUrlRequest request = key.authorization().setRedirectUri(redirectUri).setState(state).build();
    checkSendable(request, tries);
    return call(UserIntentServiceGrpc.getGetAuthorizationUrlMethod(), request, tries);
  }

  /** limit: null for none, but for that of the context. */
  private WatchState watchState(Collection<String> requestIds, CallSettings settings, Duration limit) {
    return new WatchState(requestIds, settings.resumeToken, deadline(limit), jitter);
  }

  private WatchRun run(WatchState state) {
    checkOpen();
    return newRun(state);
  }

  private WatchRun newRun(WatchState state) {
    return new WatchRun(channel, state, watches, () -> closed, silenceNanos);
  }

  private static Watch watch(WatchSource source, WatchState state) {
    return new Watch(source, state.resumeToken(), interruption -> state.cancelled("interrupted", interruption));
  }

  private <T> T block(String requestId, CallSettings settings, Wait<T> wait) {
    WatchState state = waitState(requestId, settings);
    WatchSource source = run(state);
    try (Watch watch = watch(source, state)) {
      return wait.block(watch, source);
    }
  }

  private <T> CallFuture<T> start(String requestId, CallSettings settings, Wait<T> wait) {
    WatchSource source = run(waitState(requestId, settings));
    Tries ofCancellation = tries(requestId, null, settings, IntentKey.ofRequest(requestId));
    return wait.start(source, new CallFuture<>(ofCancellation, requestId));
  }

  private WatchState waitState(String requestId, CallSettings settings) {
    Duration limit = settings.timeout == null ? timeout : settings.timeout;
    return watchState(List.of(requestId), settings.withResumeToken(ByteString.EMPTY), limit);
  }

  private void checkOpen() {
    if (closed) {
      throw new IllegalStateException("the client is closed");
    }
  }

  /** The nearer one of this and of the current context's; null: there is none. */
  private static Deadline deadline(Duration limit) {
    Deadline ofContext = Context.current().getDeadline();
    if (limit == null) {
      return ofContext;
    }
    Deadline own = Deadline.after(TimeUnit.NANOSECONDS.convert(limit), TimeUnit.NANOSECONDS);
    return ofContext == null ? own : own.minimum(ofContext);
  }

  private <Q, P> Call<Q, P> call(MethodDescriptor<Q, P> method, Q message, Tries tries) {
    checkOpen();
    if (channel instanceof ManagedChannel && ((ManagedChannel) channel).isShutdown()) {
      throw tries.notBegun(Status.Code.UNAVAILABLE, "the channel was shut down before the call began", null);
    }
    return new Call<>(channel, method, message, tries, waiting);
  }

  private Tries tries(String requestId, CreateUserIntentRequest request, CallSettings settings, IntentKey key) {
    return new Tries(requestId, request, deadline(settings.timeout == null ? timeout : settings.timeout),
        settings.maxTries == 0 ? maxTries : settings.maxTries, budget, jitter,
        () -> own != null && closed, settings.maybeBefore, key);
  }

  static CreateUserIntentRequest withId(CreateUserIntentRequest request, CallSettings settings) {
    String id = settings.requestId.isEmpty() ? request.getRequestId() : settings.requestId;
    return id.equals(request.getRequestId()) && !id.isEmpty()
        ? request
        : request.toBuilder().setRequestId(id.isEmpty() ? newRequestId() : id).build();
  }

  private static CreateUserIntentRequest requestOf(UserIntentException error) {
    if (error.request() == null) {
      throw new IllegalArgumentException("this error holds no request: it was serialised, or is not of a creation");
    }
    return error.request();
  }

  /**
   * True for everything but control characters, nothing at all, and a scheme with nothing behind it. gRPC makes a
   * channel of some of those, too, whose calls fail in ways that read like a gateway that is away.
   */
  private static boolean namesSomething(String target) {
    String bare = Objects.requireNonNull(target, "target").replaceAll("/+$", "");
    boolean onlyScheme = bare.endsWith(":") && bare.indexOf(':') == bare.length() - 1;
    return !bare.isEmpty() && !onlyScheme && target.chars().noneMatch(c -> c < ' ' || c == 0x7f);
  }

  /** Throws what gRPC or the gateway would only find out later, when nobody can tell any more whether it was sent. */
  private static void checkSendable(Message message, Tries tries) {
    String problem = unsendable(message);
    if (problem != null) {
      throw tries.malformed(problem);
    }
  }

  /** Why a message cannot be sent; null: it can. */
  static String unsendable(Message message) {
    if (!isUnicode(message)) {
      return "a text in it is not Unicode";
    }
    int bytes = message.getSerializedSize();
    return bytes <= MAX_REQUEST_BYTES
        ? null
        : "it has " + bytes + " bytes, more than the " + MAX_REQUEST_BYTES + " that may be sent";
  }

  /** False for a lone surrogate, in whose place protobuf would send a question mark: a value that nobody gave. */
  private static boolean isUnicode(Message message) {
    for (Map.Entry<FieldDescriptor, Object> entry : message.getAllFields().entrySet()) {
      List<?> values = entry.getKey().isRepeated() ? (List<?>) entry.getValue() : List.of(entry.getValue());
      for (Object value : values) {
        if (value instanceof Message && !isUnicode((Message) value)
            || value instanceof String && !StandardCharsets.UTF_8.newEncoder().canEncode((String) value)) {
          return false;
        }
      }
    }
    return true;
  }

  /** Settings of a new client. One thread. */
  public static final class Builder {
    private final String target;
    private final Channel channel;
    private ChannelCredentials credentials;
    private String serverName;
    private int protections;
    private Duration timeout = DEFAULT_TIMEOUT;
    private int maxTries = DEFAULT_MAX_TRIES;
    private Consumer<? super ManagedChannelBuilder<?>> configure = builder -> {};
    private DoubleSupplier jitter = () -> ThreadLocalRandom.current().nextDouble();
    private long silenceNanos = WatchRun.SILENCE_NANOS;

    private Builder(String target, Channel channel) {
      this.target = target;
      this.channel = channel;
    }

    /**
     * Protects the connection with TLS, or mutual TLS when the files name a client certificate.
     *
     * @param files where the certificates are
     * @return this
     * @throws IllegalArgumentException when the files cannot be used
     */
    public Builder tls(Tls files) {
      serverName = files.serverName();
      return credentials(files.credentials());
    }

    /**
     * Leaves the connection unprotected: on this machine, or where a service mesh protects it.
     *
     * @return this
     */
    public Builder plaintext() {
      return credentials(InsecureChannelCredentials.create());
    }

    /**
     * Protects the connection with credentials of the caller's own making.
     *
     * @param credentials gRPC's
     * @return this
     */
    public Builder credentials(ChannelCredentials credentials) {
      this.credentials = Objects.requireNonNull(credentials, "credentials");
      protections++;
      return this;
    }

    /**
     * How long a call may take, all its tries included, unless the call says otherwise. A nearer deadline of the
     * current {@link Context} goes before it.
     *
     * @param timeout above zero; 35 s unless set
     * @return this
     */
    public Builder timeout(Duration timeout) {
      this.timeout = CallSettings.positive(timeout);
      return this;
    }

    /**
     * How many RPCs a call may make, unless the call says otherwise.
     *
     * @param maxTries at least 1, which switches automatic repeats off; 5 unless set
     * @return this
     */
    public Builder maxTries(int maxTries) {
      this.maxTries = CallSettings.atLeastOne(maxTries);
      return this;
    }

    /**
     * gRPC's own settings of the connection, after the library's, so that they win.
     *
     * @param configure called once, by {@link #build}
     * @return this
     */
    public Builder configureChannel(Consumer<? super ManagedChannelBuilder<?>> configure) {
      this.configure = Objects.requireNonNull(configure, "configure");
      return this;
    }

    Builder jitter(DoubleSupplier jitter) { // in [0, 1); for tests
      this.jitter = jitter;
      return this;
    }

    Builder silence(Duration silence) { // after which a watch's stream is dead; for tests
      silenceNanos = silence.toNanos();
      return this;
    }

    /**
     * Makes the client. It connects at its first call.
     *
     * @return to be closed
     * @throws IllegalStateException unless exactly one protection was chosen for a target, and none for a channel
     */
    public UserIntentClient build() {
      if (channel == null && protections != 1) {
        throw new IllegalStateException("choose exactly one of tls, plaintext and credentials");
      }
      if (channel != null && protections != 0) {
        throw new IllegalStateException("a channel brings its own protection");
      }
      return new UserIntentClient(this);
    }

    private ManagedChannel connect() {
      ManagedChannelBuilder<?> builder = channelBuilder(target, credentials);
      if (serverName != null) {
        builder.overrideAuthority(serverName);
      }
      configure.accept(builder);
      return builder.build();
    }
  }
}
