package com.example.userintent;

import com.example.userintent.v1.CreateUserIntentRequest;
import com.example.userintent.v1.CreateUserIntentResponse;
import com.example.userintent.v1.Creation;
import com.example.userintent.v1.CreationState;
import com.example.userintent.v1.GetAuthorizationUrlResponse;
import com.example.userintent.v1.GetUserIntentResponse;
import com.example.userintent.v1.UserIntent;
import com.example.userintent.v1.UserIntentStatus;
import com.google.protobuf.ByteString;
import com.google.protobuf.Timestamp;
import io.grpc.Deadline;
import io.grpc.Status;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.WeakHashMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Flow;
import java.util.concurrent.TimeUnit;
import java.util.function.Supplier;

/**
 * A stand-in for {@link UserIntentClient}, for the tests of programs that use one. It needs no gateway and no network:
 * it creates intents in memory, {@code intent-1}, {@code intent-2}, ..., one for each request_id, and a repeat of an id
 * gets the same answer. It checks no field. Any thread may use it.
 */
public final class FakeClient implements ClientInterface {
  private static final Failure NOT_FOUND =
      new Failure(Status.Code.NOT_FOUND, "REQUEST_NOT_FOUND", Map.of("recovery", "STOP"));
  private static final Failure NO_INTENT =
      new Failure(Status.Code.NOT_FOUND, "USER_INTENT_NOT_FOUND", Map.of("recovery", "STOP"));

  private final ArrayDeque<Failure> failures = new ArrayDeque<>();
  private final List<CreateUserIntentRequest> requests = new ArrayList<>();
  private final Map<String, CreateUserIntentRequest> asked = new HashMap<>(); // by request_id in lower case
  private final Map<String, UserIntent> made = new HashMap<>(); // by request_id in lower case
  private final Map<String, Creation> others = new HashMap<>(); // the same: what setCreation set, without an intent
  private final List<String> log = new ArrayList<>(); // the request_id of each change, in lower case
  private final Set<FakeWatch> watches = Collections.newSetFromMap(new WeakHashMap<>());

  /** Makes one that holds nothing. */
  public FakeClient() {}

  private static final class Failure {
    final Status.Code code;
    final String reason;
    final Map<String, String> words;

    Failure(Status.Code code, String reason, Map<String, String> words) {
      this.code = code;
      this.reason = reason;
      this.words = words;
    }
  }

  /**
   * Lets the next call fail with an error that is not the gateway's: a broken connection, say. Several failures come in
   * the order of these calls. A creation that fails creates nothing.
   *
   * @param code such as UNAVAILABLE
   * @return this
   */
  public FakeClient fail(Status.Code code) {
    return fail(code, "", Map.of());
  }

  /**
   * Lets the next call fail with an error of the gateway's.
   *
   * @param code of the gRPC status
   * @param reason the name of an ErrorReason without its prefix
   * @param words {@code recovery}, {@code sent} and what else belongs to it, such as {@code user_intent_id}
   * @return this
   */
  public synchronized FakeClient fail(Status.Code code, String reason, Map<String, String> words) {
    failures.add(
        new Failure(Objects.requireNonNull(code, "code"), Objects.requireNonNull(reason, "reason"), Map.copyOf(words)));
    return this;
  }

  /**
   * Replaces the intent with this id, as {@link #getUserIntent} then answers it, and watches tell it.
   *
   * @param intent with an id that was created
   * @throws IllegalArgumentException when there is none
   */
  public synchronized void setUserIntent(UserIntent intent) {
    for (Map.Entry<String, UserIntent> entry : made.entrySet()) {
      if (entry.getValue().getId().equals(intent.getId())) {
        entry.setValue(intent);
        changed(entry.getKey());
        return;
      }
    }
    throw new IllegalArgumentException("no intent " + intent.getId());
  }

  /**
   * Sets what is recorded about a request, as {@link #getCreation} then answers it, and watches tell it: one whose
   * outcome is not known, say. With an intent it is created.
   *
   * @param creation with a request_id
   */
  public synchronized void setCreation(Creation creation) {
    String key = creation.getRequestId().toLowerCase(Locale.ROOT);
    made.remove(key);
    others.remove(key);
    if (creation.hasUserIntent()) {
      made.put(key, creation.getUserIntent());
    } else {
      others.put(key, creation);
    }
    changed(key);
  }

  private void changed(String key) {
    log.add(key);
    watches.forEach(FakeWatch::look);
  }

  /**
   * All creations and repeats so far.
   *
   * @return a copy, with their request_id
   */
  public synchronized List<CreateUserIntentRequest> getRequests() {
    return List.copyOf(requests);
  }

  @Override
  public synchronized CreateResult createUserIntent(CreateUserIntentRequest request, CallSettings settings) {
    CreateUserIntentRequest sent = UserIntentClient.withId(request, settings);
    String key = sent.getRequestId().toLowerCase(Locale.ROOT);
    requests.add(sent);
    asked.put(key, sent);
    throwNext(sent.getRequestId(), null);
    boolean replayed = made.containsKey(key);
    CreateUserIntentResponse.Builder response = CreateUserIntentResponse.newBuilder().setReplayed(replayed);
    response.getAttemptsBuilder().setUsedMin(1).setUsedMax(1).setLimit(3);
    if (!sent.getValidateOnly() && !replayed) {
      made.put(key, intent(sent));
      others.remove(key);
      changed(key);
    }
    if (!sent.getValidateOnly()) {
      response.setUserIntent(made.get(key));
    }
    return new CreateResult(sent.getRequestId(), 1, response.build());
  }

  private UserIntent intent(CreateUserIntentRequest sent) {
    return UserIntent.newBuilder()
        .setId("intent-" + (made.size() + 1))
        .setStatus(UserIntentStatus.USER_INTENT_STATUS_PENDING)
        .setAstraStatus("pending")
        .setVerificationType(sent.getVerificationType())
        .setCreateTime(now())
        .setStatusTime(now())
        .build();
  }

  @Override
  public CallFuture<CreateResult> createUserIntentAsync(CreateUserIntentRequest request, CallSettings settings) {
    CreateUserIntentRequest sent = UserIntentClient.withId(request, settings);
    return ended(sent.getRequestId(), () -> createUserIntent(sent, settings));
  }

  @Override
  public synchronized CreateResult repeat(UserIntentException error, CallSettings settings) {
    CreateUserIntentRequest request = asked.get(error.getRequestId().toLowerCase(Locale.ROOT));
    if (request == null || error.isRead()) {
      throw new IllegalArgumentException("this error is not of a creation");
    }
    return createUserIntent(request, settings.withRequestId(error.getRequestId()));
  }

  @Override
  public CallFuture<CreateResult> repeatAsync(UserIntentException error, CallSettings settings) {
    return ended(error.getRequestId(), () -> repeat(error, settings));
  }

  @Override
  public synchronized Creation getCreation(String requestId, CallSettings settings) {
    throwNext(requestId, null);
    Creation creation = recorded(requestId.toLowerCase(Locale.ROOT));
    if (creation == null) {
      throw failed(NOT_FOUND, requestId, null);
    }
    return creation;
  }

  /** Null: it is not. */
  private Creation recorded(String key) {
    UserIntent intent = made.get(key);
    return intent == null ? others.get(key)
                          : Creation.newBuilder()
                                .setRequestId(key)
                                .setState(CreationState.CREATION_STATE_CREATED)
                                .setUserIntent(intent)
                                .setCreateTime(intent.getCreateTime())
                                .setUpdateTime(intent.getCreateTime())
                                .build();
  }

  @Override
  public CallFuture<Creation> getCreationAsync(String requestId, CallSettings settings) {
    return ended(requestId, () -> getCreation(requestId, settings));
  }

  @Override
  public synchronized GetUserIntentResponse getUserIntent(IntentKey key, CallSettings settings) {
    throwNext(key.requestId, key);
    UserIntent intent = made.get(key.requestId.toLowerCase(Locale.ROOT));
    for (UserIntent other : made.values()) {
      intent = other.getId().equals(key.userIntentId) ? other : intent;
    }
    if (intent == null) {
      throw failed(key.userIntentId.isEmpty() ? NOT_FOUND : NO_INTENT, key.requestId, key);
    }
    return GetUserIntentResponse.newBuilder().setUserIntent(intent).setReadTime(now()).build();
  }

  @Override
  public CallFuture<GetUserIntentResponse> getUserIntentAsync(IntentKey key, CallSettings settings) {
    return ended(key.requestId, () -> getUserIntent(key, settings));
  }

  /** A page of Astra's sandbox, for the program "client-id". */
  @Override
  public GetAuthorizationUrlResponse getAuthorizationUrl(
      IntentKey key, String redirectUri, String state, CallSettings settings) {
    UserIntent intent = getUserIntent(key, settings).getUserIntent();
    AuthorizationUrl url =
        AuthorizationUrl.of("https://app-sandbox.astra.finance", "client-id", intent, redirectUri, state);
    return GetAuthorizationUrlResponse.newBuilder()
        .setUrl(url.getUrl())
        .setPage(url.getPage())
        .setUserIntent(intent)
        .build();
  }

  @Override
  public CallFuture<GetAuthorizationUrlResponse> getAuthorizationUrlAsync(
      IntentKey key, String redirectUri, String state, CallSettings settings) {
    return ended(key.requestId, () -> getAuthorizationUrl(key, redirectUri, state, settings));
  }

  /**
   * Tells the present states, and then what creations, {@link #setUserIntent} and {@link #setCreation} change. An error
   * of {@link #fail} ends it as it begins.
   */
  @Override
  public Watch watch(Collection<String> requestIds, CallSettings settings) {
    return watch(newWatch(requestIds, settings), settings.resumeToken);
  }

  private static Watch watch(FakeWatch source, ByteString token) {
    return new Watch(source, token, interruption -> source.failed(Status.Code.CANCELLED, "interrupted"));
  }

  @Override
  public Flow.Publisher<WatchEvent> watchPublisher(Collection<String> requestIds, CallSettings settings) {
    return new WatchPublisher(() -> newWatch(requestIds, settings));
  }

  /** Waits without a timeout, unless the settings give one. */
  @Override
  public Creation waitForOutcome(String requestId, CallSettings settings) {
    return block(requestId, settings, Wait.forOutcome(requestId));
  }

  @Override
  public CallFuture<Creation> waitForOutcomeAsync(String requestId, CallSettings settings) {
    return Wait.forOutcome(requestId).start(newWatch(List.of(requestId), settings), running(requestId));
  }

  /** Waits without a timeout, unless the settings give one. */
  @Override
  public UserIntent waitForStatus(String requestId, Set<UserIntentStatus> statuses, CallSettings settings) {
    return block(requestId, settings, Wait.forStatus(requestId, statuses));
  }

  @Override
  public CallFuture<UserIntent> waitForStatusAsync(
      String requestId, Set<UserIntentStatus> statuses, CallSettings settings) {
    return Wait.forStatus(requestId, statuses).start(newWatch(List.of(requestId), settings), running(requestId));
  }

  private <T> T block(String requestId, CallSettings settings, Wait<T> wait) {
    FakeWatch source = newWatch(List.of(requestId), settings);
    try (Watch watch = watch(source, ByteString.EMPTY)) {
      return wait.block(watch, source);
    }
  }

  private synchronized FakeWatch newWatch(Collection<String> requestIds, CallSettings settings) {
    Set<String> keys = new LinkedHashSet<>();
    requestIds.forEach(id -> keys.add(id.toLowerCase(Locale.ROOT)));
    String requestId = requestIds.size() == 1 ? requestIds.iterator().next() : "";
    FakeWatch watch =
        new FakeWatch(() -> nextFailure(requestId), position -> after(position, keys), settings.resumeToken, requestId);
    watches.add(watch);
    if (settings.timeout != null) {
      CompletableFuture.delayedExecutor(settings.timeout.toNanos(), TimeUnit.NANOSECONDS).execute(watch::timeIsOver);
    }
    return watch;
  }

  private synchronized UserIntentException nextFailure(String requestId) {
    return failures.isEmpty() ? null : failed(failures.poll(), requestId, IntentKey.ofRequest(requestId));
  }

  private synchronized FakeWatch.Slice after(int position, Set<String> keys) {
    Set<String> told =
        position < 0 ? keys : new LinkedHashSet<>(log.subList(Math.min(position, log.size()), log.size()));
    List<Creation> states = new ArrayList<>();
    for (String key : told) {
      if ((keys.isEmpty() || keys.contains(key)) && recorded(key) != null) {
        states.add(recorded(key));
      }
    }
    return new FakeWatch.Slice(states, log.size());
  }

  private void throwNext(String requestId, IntentKey key) {
    if (!failures.isEmpty()) {
      throw failed(failures.poll(), requestId, key);
    }
  }

  /** key: of a read, else null. */
  private static UserIntentException failed(Failure failure, String requestId, IntentKey key) {
    Decoded decoded = Decoded.made(failure.code, failure.reason, failure.words);
    if (key != null) {
      decoded = decoded.ofRead(key.userIntentId, 1);
    }
    return UserIntentException.of(decoded.last(NotRepeated.NOT_RETRYABLE), requestId, 1, null, null);
  }

  private static <T> CallFuture<T> ended(String requestId, Supplier<T> call) {
    CallFuture<T> future = running(requestId);
    try {
      future.complete(call.get());
    } catch (UserIntentException failure) {
      future.completeExceptionally(failure);
    }
    return future;
  }

  private static <T> CallFuture<T> running(String requestId) {
    return new CallFuture<>(
        new Tries(requestId, null, Deadline.after(1, TimeUnit.DAYS), 1, new RetryBudget(), () -> 0, () -> false),
        requestId);
  }

  private static Timestamp now() {
    Instant now = Instant.now();
    return Timestamp.newBuilder().setSeconds(now.getEpochSecond()).setNanos(now.getNano()).build();
  }
}
